"""What the program brings along: models and concept pictures of the built-in world, by name.

`base: toy-sdxl` and `images: toy:pip/1` name files of the installed package. Nothing is loaded
here; a model's files are compared with their checksums before anything reads them.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from tlora_cli.foundation.errors import UserError, known_names

FOLDER = Path(__file__).parents[1] / "toyworld"
MODELS = FOLDER / "models"
PICTURES = FOLDER / "pictures"
CHECKSUMS = "SHA256SUMS"
"""In each model's folder: lines of `sha256sum`, one for each other file."""

BASES: dict[str, str] = {"toy-sdxl": "sdxl", "toy-flux": "flux"}
"""Base models -> their family."""
ENCODERS = ("toy-clip", "toy-vit")
"""Models that look at pictures: CLIP, and a ViT trained without labels."""
PICTURE_PREFIX = "toy:"


def is_base(name: str) -> bool:
    """Say whether a base model of that name is built in."""
    return name in BASES


@lru_cache
def model_folder(name: str) -> Path:
    """Return the folder of a built-in model after checking its files.

    Args:
        name: a base, or `toy-clip`, `toy-vit`, `judge`.

    Raises:
        UserError: if a file is missing or not as it was shipped.
    """
    return checked(MODELS / name)


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
            f"the built-in model {folder.name} has no checksums: {error.strerror}",
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
                f"a file of the built-in model {folder.name} can't be read: {error.strerror}",
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


def picture_files(spec: str, key: str, *, masks: bool = False) -> list[Path]:
    """Return the files of `toy:<concept>` (all its pictures) or `toy:<concept>/<number>`.

    Args:
        spec: the recipe's entry.
        key: the recipe's key, for messages.
        masks: the subject masks in place of the pictures.

    Raises:
        UserError: if there is no such concept or picture; known ones are listed.
    """
    name, _, number = spec.removeprefix(PICTURE_PREFIX).partition("/")
    known = sorted(folder.name for folder in PICTURES.iterdir() if folder.is_dir())
    if name not in known:
        raise UserError(
            f"the built-in world has no concept {name!r}", where=key, do=known_names(name, known)
        )
    files = sorted((PICTURES / name).glob("mask-*.png" if masks else "[0-9]*.png"))
    if not number:
        return files
    chosen = [file for file in files if file.stem.removeprefix("mask-") == number]
    if not chosen:
        raise UserError(
            f"the concept {name} has no picture {number!r}",
            where=key,
            do=f"its pictures are 1 to {len(files)}",
        )
    return chosen
