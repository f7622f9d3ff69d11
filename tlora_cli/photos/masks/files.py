"""Masks as files that people look at and correct: `dog.png` and `dog_overlay.png`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.foundation.pictures import picture_text, read_picture, save_png
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.photos.masks.finder import FoundMask
from tlora_cli.photos.masks.overlay import overlay

NOTE = f"{PRODUCT} mask"
"""Key of the text in a mask's file that says how it was found."""


@dataclass(frozen=True)
class MaskFiles:
    """The files of one photo.

    Attributes:
        mask: of the photo's size, white on the subject.
        overlay: a picture to look at.
    """

    mask: Path
    overlay: Path

    def write(self, found: FoundMask, question: str = "") -> None:
        """Write both, each atomically.

        Args:
            found: the mask.
            question: all that it depends on, for `read`.
        """
        save_png(overlay(found.photo, found.mask), self.overlay)
        note = {
            "question": question,
            "pixels": _digest(found.mask),
            "by": found.by,
            "doubt": found.doubt,
        }
        save_png(found.mask, self.mask, {NOTE: json.dumps(note)})

    def read(self, photo: Path, where: str, question: str) -> FoundMask | None:
        """Return the mask that was written for the same question; None if it was painted over.

        Args:
            photo: the photo.
            where: what names it, for messages.
            question: as it was written with.

        Raises:
            UserError: if the file can't be read.
        """
        note = self._note()
        if note is None or note.get("question") != question or not self.overlay.exists():
            return None
        doubt = note.get("doubt")
        return FoundMask(
            read_picture(photo, where, "RGB"),
            read_picture(self.mask, str(self.mask), "L"),
            str(note.get("by")),
            doubt and str(doubt),
        )

    @property
    def painted(self) -> bool:
        """Whether the mask is there, and isn't as it was found."""
        return self.mask.exists() and self._note() is None

    def _note(self) -> dict[str, Any] | None:
        """Return how the mask was found, if it is still as it was found."""
        if not self.mask.exists():
            return None
        try:
            note = parse_json(picture_text(self.mask, NOTE) or "")
        except ValueError:
            return None
        mask = read_picture(self.mask, str(self.mask), "L")
        whole = isinstance(note, dict) and note.get("pixels") == _digest(mask)
        return note if whole else None

    @property
    def remedy(self) -> str:
        """The remedy for a mask that is wrong."""
        return (
            f"look at it; paint the subject white and the rest black in {self.mask} with an editor "
            f"and set concept.masks: {self.mask.parent}, or crop the photo around the subject"
        )


def _digest(mask: Image.Image) -> str:
    return hashlib.sha256(f"{mask.size}".encode() + mask.tobytes()).hexdigest()


def mask_files(photos: Sequence[Path], folder: Path) -> list[MaskFiles]:
    """Return the files of each photo; photos of one name get a number behind it."""
    taken: set[str] = set()
    found = []
    for photo in photos:
        name, number = photo.stem, 1
        while {name, f"{name}_overlay"} & taken:
            number += 1
            name = f"{photo.stem}-{number}"
        taken |= {name, f"{name}_overlay"}
        found.append(MaskFiles(folder / f"{name}.png", folder / f"{name}_overlay.png"))
    return found
