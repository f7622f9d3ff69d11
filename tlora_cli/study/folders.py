"""Evaluation folders, as `tlora evaluate` leaves them: whose pictures they are, and of what."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.evaluation.pictures_table import read_pictures_table
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import expanded, is_regular
from tlora_cli.foundation.untrusted_json import parse_json

Asked = tuple[str, int]
"""A prompt with V* for the concept, and which of its pictures, from 0 on: the same noise in folders
that were drawn with the same suite and seed."""

SUITE = "suite"
"""The group of an evaluation's pictures that are asked for something beside the concept."""


@dataclass(frozen=True)
class Drawn:
    """The pictures of one adapter.

    Attributes:
        folder: of the evaluation.
        method: what the study calls the adapters of this kind.
        known_as: name of the method in recipes; empty if the folder doesn't say.
        concept: what the study calls the concept.
        class_name: of the concept; empty if the folder doesn't say.
        reference: real pictures of the concept.
        pictures: what was asked -> file.
    """

    folder: Path
    method: str
    known_as: str
    concept: str
    class_name: str
    reference: tuple[Path, ...]
    pictures: Mapping[Asked, Path]


def read_folder(given: str, reference: Mapping[str, Path]) -> Drawn:
    """Return what FOLDER, METHOD=FOLDER or METHOD/CONCEPT=FOLDER names.

    Args:
        given: the word on the command line.
        reference: concept -> real picture, over what folders say; "" stands for every concept.

    Raises:
        UserError: if it is no evaluation, or says no reference picture and none is given.
    """
    name, equals, path = given.partition("=")
    if not equals or expanded(given).exists():
        name, path = "", given
    method, _, concept = name.partition("/")
    folder = expanded(path)
    results = _results(folder)
    learned = results.get("learned", {})
    if not isinstance(learned, dict):
        learned = {}
    known_as = _text(learned, "method")
    concept = concept or _text(learned, "name") or "concept"
    method = method or known_as or folder.name
    own = reference.get(concept, reference.get(""))
    said = learned.get("reference")
    names = [one for one in said if isinstance(one, str)] if isinstance(said, list) else []
    files = (own,) if own else tuple(folder / one for one in names)
    if not files or not all(map(is_regular, files)):
        raise UserError(
            f"the photograph of {concept!r} is not known",
            where=str(own or folder),
            do=f"name it: --reference {concept}=dog.jpg",
        )
    pictures = _pictures(folder, results)
    return Drawn(folder, method, known_as, concept, _text(learned, "class"), files, pictures)


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""


def _results(folder: Path) -> dict[str, Any]:
    file = folder / "results.json"
    try:
        if not is_regular(file):
            raise FileNotFoundError(file)
        found = parse_json(file.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is no table")
    except (OSError, ValueError) as error:
        raise UserError(
            "the folder holds no finished evaluation",
            where=str(folder),
            do="run `tlora evaluate --adapter ... --output ...`, and name that folder",
        ) from error
    return found


def _pictures(folder: Path, results: Mapping[str, Any]) -> dict[Asked, Path]:
    """Return the suite's pictures; those of a folder that tlora didn't draw lie where it says."""
    elsewhere = results.get("folder")
    root = Path(elsewhere) if isinstance(elsewhere, str) else folder
    rows = read_pictures_table(folder)
    asked = [(row["prompt"], row["file"]) for row in rows if row["group"] == SUITE]
    seen: Counter[str] = Counter()
    found: dict[Asked, Path] = {}
    for prompt, name in asked:
        path = root / name
        if not is_regular(path):
            raise UserError(
                "a picture of the evaluation is missing",
                where=str(path),
                do="run the same `tlora evaluate` again, which draws what is missing",
            )
        found[prompt, seen[prompt]] = path
        seen[prompt] += 1
    return found


def in_common(one: Drawn, other: Drawn) -> list[Asked]:
    """Return what both were asked for, in the order of the first."""
    return [asked for asked in one.pictures if asked in other.pictures]


def check_folders(drawn: Sequence[Drawn]) -> None:
    """Check that the folders make a study.

    Raises:
        UserError: if there are less than two methods, or the same one twice for a concept.
    """
    if len({one.method for one in drawn}) < 2:
        raise UserError(
            "a study needs the evaluations of two methods at least",
            where=", ".join(str(one.folder) for one in drawn),
            do="name them: tlora study new tlora=scores/dog-tlora lora=scores/dog-lora",
        )
    twice = [one for one, n in Counter((d.method, d.concept) for d in drawn).items() if n > 1]
    if twice:
        method, concept = twice[0]
        raise UserError(
            f"two folders are of the method {method!r} and the concept {concept!r}",
            where=", ".join(str(d.folder) for d in drawn if (d.method, d.concept) == twice[0]),
            do="tell them apart: METHOD/CONCEPT=FOLDER",
        )


def dumped(values: Mapping[str, Any]) -> str:
    """Return values as the JSON of a file."""
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"
