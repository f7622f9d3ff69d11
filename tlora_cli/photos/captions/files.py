"""The text beside a photo: `rex.txt` for `rex.jpg`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tlora_cli.foundation.errors import UserError

CAPTION = ".txt"
"""End of the name of the text beside a picture."""


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
