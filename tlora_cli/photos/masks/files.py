"""Masks as files that people look at and correct: `dog.png` and `dog_overlay.png`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlora_cli.foundation.pictures import save_png
from tlora_cli.photos.masks.finder import FoundMask
from tlora_cli.photos.masks.overlay import overlay


@dataclass(frozen=True)
class MaskFiles:
    """The files of one photo.

    Attributes:
        mask: of the photo's size, white on the subject.
        overlay: a picture to look at.
    """

    mask: Path
    overlay: Path

    def write(self, found: FoundMask) -> None:
        """Write both, each atomically."""
        save_png(found.mask, self.mask)
        save_png(overlay(found.photo, found.mask), self.overlay)

    @property
    def remedy(self) -> str:
        """The remedy for a mask that is wrong."""
        return (
            f"look at it; paint the subject white and the rest black in {self.mask} with an editor "
            f"and set concept.masks: {self.mask.parent}, or crop the photo around the subject"
        )


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
