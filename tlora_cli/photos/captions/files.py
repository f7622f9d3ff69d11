"""The text beside a photo: `rex.txt` for `rex.jpg`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tlora_cli.foundation.errors import UserError
from tlora_cli.photos.folder import EXTENSIONS

CAPTION = ".txt"
"""End of the name of the text beside a picture."""
OF_OTHERS = (".caption", ".captions")
"""Ends that other programs use for it."""


def caption_beside(picture: Path) -> Path | None:
    """Return the text beside a picture, whatever the case of its ending; None if there is none."""
    file = picture.with_suffix(CAPTION)
    if file.exists():
        return file
    upper = picture.with_suffix(CAPTION.upper())
    return upper if upper.exists() else None


def without_picture(pictures: Sequence[Path]) -> list[Path]:
    """Return the texts in the pictures' folders that look like captions and belong to no picture.

    Pictures that lie beside those named have texts of their own.
    """
    found = []
    for folder in dict.fromkeys(picture.parent for picture in pictures):
        there = sorted(folder.iterdir())
        stems = {path.stem for path in there if path.suffix.lower() in EXTENSIONS}
        stems |= {picture.stem for picture in pictures}
        found += [
            path
            for path in there
            if not path.name.startswith(".")
            and (
                path.suffix.lower() in OF_OTHERS
                or (path.suffix.lower() == CAPTION and path.stem not in stems)
            )
        ]
    return found


def new_captions(photos: Sequence[Path]) -> list[Path]:
    """Return the file for the caption of each photo.

    Raises:
        UserError: if one is there already, or two photos would share one.
    """
    owners: dict[Path, Path] = {}
    for photo in photos:
        file = photo.with_suffix(CAPTION)
        if file.exists() or file.is_symlink():
            raise UserError(
                f"{photo} has a text beside it already, and it is left as it is",
                where=str(file),
                do="remove it, or name only the photos that have none",
            )
        if file in owners:
            raise UserError(
                f"{owners[file]} and {photo} would have the same text beside them",
                where=str(file),
                do="rename one of them, or name it once",
            )
        owners[file] = photo
    return list(owners)
