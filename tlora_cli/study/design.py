"""The design of a study: which pairs of pictures there are, in a folder that needs no other.

The first method is compared with each of the others, as in table 3 of the paper. A pair is what two
adapters of one concept drew of the same prompt with the same noise. The study's pictures have names
that tell nothing, and lose what their files say of themselves.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import folder_atomically, is_regular, write_text
from tlora_cli.foundation.pictures import read_picture, save_png
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.study.folders import Drawn, check_folders, dumped, in_common

VERSION = 1
FILE, PICTURES = "study.json", "pictures"
REFERENCES = 3
"""Real pictures of a concept that a rater sees at most."""


@dataclass(frozen=True)
class Method:
    """A method of the study: what it is called there, and its name in recipes, if it is known."""

    name: str
    known_as: str


@dataclass(frozen=True)
class Concept:
    """A concept: its name, its class, and the names of its real pictures."""

    name: str
    class_name: str
    reference: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """Two pictures of the same prompt and noise.

    Attributes:
        number: of the pair in the study.
        other: number of the method that the first one is compared with.
        concept: number of the concept.
        prompt: as raters read it.
        first, second: names of the pictures, of the first method and of the other.
    """

    number: int
    other: int
    concept: int
    prompt: str
    first: str
    second: str


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        folder: where it lies.
        seed: of all that is random in it.
        pairs_each: pairs that a rater is shown, without those that check him.
        methods: the first is compared with the others.
        concepts: in the order of the folders.
        pairs: in an order in which each part of it has all methods and concepts alike.
    """

    folder: Path
    seed: int
    pairs_each: int
    methods: tuple[Method, ...]
    concepts: tuple[Concept, ...]
    pairs: tuple[Pair, ...]

    def picture(self, name: str) -> Path:
        """Return the file of a picture."""
        return self.folder / PICTURES / f"{name}.png"


def make_study(drawn: Sequence[Drawn], folder: Path, pairs_each: int, seed: int) -> Study:
    """Write a study into a new folder.

    Args:
        drawn: adapters' pictures.
        folder: which isn't there yet.
        pairs_each: pairs that a rater is shown.
        seed: of all that is random.

    Raises:
        UserError: if there is no pair, a picture can't be read, or the folder is there.
    """
    if folder.exists():
        raise UserError(
            f"{folder} exists already and is left as it is",
            where="--output",
            do=f"go on with `tlora study serve {folder}`, or name a new folder",
        )
    check_folders(drawn)
    names = list(dict.fromkeys(one.method for one in drawn))
    by_place = {(one.method, one.concept): one for one in drawn}
    concepts = [
        one
        for one in dict.fromkeys(d.concept for d in drawn)
        if sum(d.concept == one for d in drawn) > 1
    ]
    draw = random.Random(seed)
    names_of: dict[Path, str] = {}
    strata = []
    for number, concept in enumerate(concepts):
        first = by_place.get((names[0], concept))
        for other, name in enumerate(names[1:], start=1):
            second = by_place.get((name, concept))
            if first is None or second is None:
                continue
            word = first.class_name or second.class_name or "thing"
            found = [
                (
                    other,
                    number,
                    prompt.replace("V*", word),
                    _named(first.pictures[prompt, turn], names_of, draw),
                    _named(second.pictures[prompt, turn], names_of, draw),
                )
                for prompt, turn in in_common(first, second)
            ]
            draw.shuffle(found)
            strata.append(found)
    draw.shuffle(strata)
    dealt = [one for turn in zip_longest(*strata) for one in turn if one is not None]
    if not dealt:
        raise UserError(
            f"no picture of {names[0]!r} has a counterpart of the same concept and prompt",
            where=", ".join(str(one.folder) for one in drawn),
            do="evaluate all adapters with the same suite and seed; say which folders are of one "
            "concept: METHOD/CONCEPT=FOLDER",
        )
    known = {one.method: one.known_as for one in drawn}
    study = Study(
        folder,
        seed,
        min(pairs_each, len(dealt)),
        tuple(Method(name, known[name]) for name in names),
        tuple(_concept(one, drawn, names_of, draw) for one in concepts),
        tuple(Pair(n, *one) for n, one in enumerate(dealt)),
    )
    _write(study, names_of)
    return study


def _named(file: Path, names_of: dict[Path, str], draw: random.Random) -> str:
    return names_of.setdefault(file, f"{draw.getrandbits(48):012x}")


def _concept(
    name: str, drawn: Sequence[Drawn], names_of: dict[Path, str], draw: random.Random
) -> Concept:
    own = [one for one in drawn if one.concept == name]
    files = own[0].reference[:REFERENCES]
    word = next((one.class_name for one in own if one.class_name), "")
    return Concept(name, word, tuple(_named(file, names_of, draw) for file in files))


def _write(study: Study, names_of: dict[Path, str]) -> None:
    values = asdict(study)
    del values["folder"]
    with folder_atomically(study.folder) as unfinished:
        for file, name in names_of.items():
            picture = read_picture(file, str(file), "RGB")
            picture.info.clear()  # it would say the method
            save_png(picture, unfinished / PICTURES / f"{name}.png")
        write_text(unfinished / FILE, dumped({"version": VERSION, **values}))


_KINDS: dict[Any, type] = {"int": int, "str": str}
"""Kinds of fields, as annotations write them."""


def _check(study: Study) -> None:
    """Raise a ValueError if a study that was read can't be one: files are edited and damaged."""
    records: list[Any] = [*study.methods, *study.concepts, *study.pairs]
    for one in records:
        for field in fields(one):
            kind, value = _KINDS.get(field.type), getattr(one, field.name)
            if kind is not None and type(value) is not kind:
                raise ValueError(f"{field.name} is {value!r}")
    if type(study.seed) is not int or type(study.pairs_each) is not int or study.pairs_each < 1:
        raise ValueError("the seed or the number of pairs is no whole number")
    if len({one.name for one in study.methods}) < max(2, len(study.methods)):
        raise ValueError("two methods of different names are the least")
    for number, pair in enumerate(study.pairs):
        if pair.number != number or not 0 < pair.other < len(study.methods):
            raise ValueError(f"the pair {number} is of no two methods")
        if not 0 <= pair.concept < len(study.concepts):
            raise ValueError(f"the pair {number} is of no concept")
    shown = [name for pair in study.pairs for name in (pair.first, pair.second)]
    shown += [name for one in study.concepts for name in one.reference]
    if not study.pairs or not all(isinstance(one, str) and one.isalnum() for one in shown):
        raise ValueError("a picture's name is not one that tlora gives")


def read_study(folder: Path) -> Study:
    """Return the study of a folder.

    Raises:
        UserError: if it holds none, or one of another version.
    """
    try:
        if not is_regular(folder / FILE):
            raise FileNotFoundError(folder / FILE)
        found: Any = parse_json((folder / FILE).read_text("utf-8"))
        if found["version"] != VERSION:
            raise UserError(
                "the study was made by another version of tlora",
                where=str(folder),
                do="go on with the version that made it",
            )
        study = Study(
            folder,
            found["seed"],
            found["pairs_each"],
            tuple(Method(**one) for one in found["methods"]),
            tuple(
                Concept(one["name"], one["class_name"], tuple(one["reference"]))
                for one in found["concepts"]
            ),
            tuple(Pair(**one) for one in found["pairs"]),
        )
        _check(study)
        return study
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            "the folder holds no study",
            where=str(folder),
            do="make one: tlora study new tlora=scores/dog-tlora lora=scores/dog-lora",
        ) from error
