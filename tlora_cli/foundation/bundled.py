"""Bundles: models and pictures that come with an installed package and are found by their names.

A recipe names them as it names a Hub id or a file: `base: <a bundle's base>`, `images: <its prefix>
<concept>/1`. Bundles are plug-ins: what the program knows of one is its `Bundle`, and a package
adds another through the entry point group `tlora.bundles`. Nothing is loaded here; a model's files
are compared with their checksums before anything reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from tlora_cli.foundation.errors import UserError, known_names, system_reason
from tlora_cli.foundation.plugins import Registry

CHECKSUMS = "SHA256SUMS"
"""File in each model's folder: lines of `sha256sum`, one for each other file."""
ABOUT = ("README.md", "scores.json")
"""Files of a model's folder that only tell of it."""


@dataclass(frozen=True)
class JudgedScore:
    """A share that a bundle's judge counts.

    Attributes:
        about: one sentence, what share it is.
        less_is_better: whether it should be low.
        all_of: names of scores; a picture counts here where it counts in all of these. So results
            from before this score was known can be completed, picture by picture.
    """

    about: str
    less_is_better: bool = False
    all_of: tuple[str, ...] = ()


def _no_more(base: str, method: str) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Bundle:
    """The offer of a bundle. Its module imports neither torch nor diffusers.

    Attributes:
        title: what messages call it, such as "the built-in world".
        models: folder of its models, one folder each, with checksums.
        pictures: folder of its concepts' pictures: `<concept>/1.png`, `<concept>/mask-1.png`, ...
        prefix: what the names of its pictures begin with in a recipe.
        bases: base model -> its family. The first is what a machine without a GPU trains.
        encoders: kind of encoder, as `tlora evaluate` names it -> the model that stands in for it.
        concepts: concept -> its class.
        class_words: words for classes that the bases can draw.
        settings: (base, method) -> recipe settings over the published ones.
        photo: (base, method) -> settings over those, in `recipe: photo`, of a low-rank method.
        scoring_prompts: prompts with V* on which checkpoints of its bases are compared.
        preview_prompts: prompts with V* that a new recipe previews.
        places: for scenes: words for a place in a caption, and the prompt that a base draws it
            from.
        phrases: of `concept.phrases: auto`: what its bases can add to a subject.
        example_picture: the name of a picture, for the description of recipes.
        batch_size: how many pictures its bases draw together.
        license: of all its bases, as the Hub's model cards name it.
        evaluation: `module:attribute` of an `evaluation.judging.FindEvaluation`, which has the
            prompts and the judge for a concept of the bundle; None for a bundle without a judge.
        recognizes: `module:function` of (base, pixels (3, R, R)) -> whether a base can draw such a
            picture; None if that can't be told.
        scores: name of what the judge counts -> what it is; the first says most.
        plotted: two of the scores, which a comparison plots against each other.
    """

    title: str
    models: Path
    pictures: Path
    prefix: str
    bases: Mapping[str, str]
    encoders: Mapping[str, str]
    concepts: Mapping[str, str]
    class_words: Sequence[str]
    settings: Callable[[str, str], dict[str, Any]]
    scoring_prompts: Sequence[str]
    preview_prompts: Sequence[str]
    example_picture: str
    batch_size: int
    license: str
    places: Sequence[tuple[str, str]] = ()
    phrases: Sequence[str] = ()
    photo: Callable[[str, str], dict[str, Any]] = _no_more
    evaluation: str | None = None
    recognizes: str | None = None
    scores: Mapping[str, JudgedScore] = field(default_factory=dict)
    plotted: tuple[str, str] | None = None

    def picture_name(self, concept: str) -> str:
        """Return how a recipe names the first picture of a concept."""
        return f"{self.prefix}{concept}/1"

    def parts_of(self, picture: str) -> tuple[str, str]:
        """Return the concept and the number in a picture's name; no number stands for all."""
        concept, _, number = picture.removeprefix(self.prefix).partition("/")
        return concept, number

    def owns(self, file: Path) -> bool:
        """Say whether a file is one of its pictures."""
        return file.resolve().is_relative_to(self.pictures.resolve())


BUNDLES: Registry[Bundle] = Registry(
    "tlora.bundles", {"toyworld": "tlora_cli.toyworld.bundle:BUNDLE"}
)
"""Name -> bundle."""


def shipped() -> Bundle:
    """Return the program's own bundle; bundles of other packages are not imported."""
    return BUNDLES[next(iter(BUNDLES))]


def bases() -> dict[str, str]:
    """Return the base models of all bundles -> their family."""
    return {base: family for one in BUNDLES.values() for base, family in one.bases.items()}


def bundle_of_base(model: str) -> Bundle | None:
    """Return the bundle that has a base model of that name, or None."""
    return next((one for one in BUNDLES.values() if model in one.bases), None)


def is_base(model: str) -> bool:
    """Say whether a base model of that name is in a bundle."""
    return bundle_of_base(model) is not None


def is_encoder(model: str) -> bool:
    """Say whether an encoder of that name is in a bundle."""
    return any(model in one.encoders.values() for one in BUNDLES.values())


def bundle_of_picture(name: object) -> Bundle | None:
    """Return the bundle that a recipe's picture is named in, or None for a file or folder."""
    if not isinstance(name, str):
        return None
    return next((one for one in BUNDLES.values() if name.startswith(one.prefix)), None)


def concepts() -> dict[str, Bundle]:
    """Return the concepts of all bundles -> their bundle."""
    return {concept: one for one in BUNDLES.values() for concept in one.concepts}


def judged_scores() -> dict[str, JudgedScore]:
    """Return the scores of all bundles' judges by name."""
    return {name: score for one in BUNDLES.values() for name, score in one.scores.items()}


# --- files ----------------------------------------------------------------------------------------


def base_in(folder: str | Path) -> str | None:
    """Return the name of the base whose folder, or a part's folder in it, this is; else None."""
    path = Path(folder)
    for one in (path, path.parent):
        bundle = bundle_of_base(one.name)
        if bundle is not None and one == bundle.models / one.name:
            return one.name
    return None


def version_of(base: str) -> str | None:
    """Return what tells a base's weights from others under its name, 12 hexadecimal digits.

    None of a base that no bundle has: there the name and the revision say which weights are meant.

    A bundle's base may be trained anew; what was learned on the old weights is worth nothing on
    new ones, even where all shapes agree.

    Args:
        base: as a recipe names it.

    Raises:
        UserError: if the files of a bundle's base are damaged.
    """
    if not is_base(base):
        return None
    lines = (model_folder(base) / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    weights = [line for line in lines if line.split(maxsplit=1)[1] not in ABOUT]
    return hashlib.sha256("\n".join(weights).encode()).hexdigest()[:12]


@lru_cache
def model_folder(name: str) -> Path:
    """Return the folder of a bundled model after checking its files.

    Args:
        name: a base, an encoder, or another model of a bundle.

    Raises:
        UserError: if there is no such model, or a file is missing or not as it was shipped.
    """
    folders = [one.models / name for one in BUNDLES.values()]
    return checked(next((one for one in folders if one.is_dir()), folders[0]))


def checked(folder: Path) -> Path:
    """Return the folder if all its files have their checksums.

    Raises:
        UserError: if a file is missing or damaged.
    """
    do = "install tlora again; its files are not whole"
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        sums = [(wanted, name) for wanted, name in (line.split(maxsplit=1) for line in lines)]
        if not sums:
            raise ValueError("empty")
    except OSError as error:
        raise UserError(
            f"the built-in model {folder.name} has no checksums: {system_reason(error)}",
            where=str(folder / CHECKSUMS),
            do=do,
        ) from error
    except ValueError as error:
        raise UserError(
            f"the checksums of the built-in model {folder.name} are damaged",
            where=str(folder / CHECKSUMS),
            do=do,
        ) from error
    for wanted, name in sums:
        file = folder / name
        try:
            with file.open("rb") as opened:
                found = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise UserError(
                f"a file of the built-in model {folder.name} can't be read: {system_reason(error)}",
                where=str(file),
                do=do,
            ) from error
        if found != wanted:
            raise UserError(
                f"the built-in model {folder.name} is damaged: "
                f"{name} has the checksum {found[:12]}..., not {wanted[:12]}...",
                where=str(file),
                do=do,
            )
    return folder


def write_checksums(folder: Path) -> None:
    """Write the checksums of all files below `folder` (when a model is made)."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != CHECKSUMS)
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder).as_posix()}\n"
        for file in files
    ]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def picture_files(bundle: Bundle, name: str, key: str, *, masks: bool = False) -> list[Path]:
    """Return the files of `<prefix><concept>` (all its pictures) or `<prefix><concept>/<number>`.

    Args:
        bundle: whose pictures they are.
        name: the recipe's entry.
        key: the recipe's key, for messages.
        masks: the subject masks in place of the pictures.

    Raises:
        UserError: if there is no such concept or picture; known ones are listed.
    """
    concept, number = bundle.parts_of(name)
    known = sorted(folder.name for folder in bundle.pictures.iterdir() if folder.is_dir())
    if concept not in known:
        raise UserError(
            f"{bundle.title} has no concept {concept!r}",
            where=key,
            do=known_names(concept, known),
        )
    files = sorted((bundle.pictures / concept).glob("mask-*.png" if masks else "[0-9]*.png"))
    if not number:
        return files
    chosen = [file for file in files if file.stem.removeprefix("mask-") == number]
    if not chosen:
        raise UserError(
            f"the concept {concept} has no picture {number!r}",
            where=key,
            do=f"its pictures are 1 to {len(files)}",
        )
    return chosen
