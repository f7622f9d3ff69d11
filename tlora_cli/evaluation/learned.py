"""The thing that an evaluated adapter has learned, kept in the folder for those who look later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tlora_cli.foundation.pictures import save_png

REFERENCE = "reference"
"""Folder of the first of the real pictures, inside the evaluation's."""
MOST = 4
"""Pictures that are kept there."""


def keep_reference(folder: Path, pictures: Sequence[Image.Image]) -> list[str]:
    """Write the first of the real pictures, as they were trained on; return their names in it."""
    names = []
    for number, picture in enumerate(pictures[:MOST], start=1):
        save_png(picture, folder / REFERENCE / f"{number}.png")
        names.append(f"{REFERENCE}/{number}.png")
    return names


def learned(
    reference: Sequence[str], class_name: str, method: str | None, concept: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what results.json says of it.

    Args:
        reference: names of the real pictures.
        class_name: of the concept.
        method: that trained it; None if it isn't known.
        concept: section of the adapter's recipe; empty if it isn't known.
    """
    return {
        "method": method,
        "class": class_name,
        "name": _name(concept.get("images")),
        "reference": list(reference),
    }


def _name(images: object) -> str | None:
    """Return what its pictures call a concept: `toy:luna/1` luna, `photos/rex/1.jpg` rex."""
    first = images[0] if isinstance(images, list) and images else images
    if not isinstance(first, str):
        return None
    parts = [part for part in first.replace("\\", "/").rpartition(":")[2].split("/") if part]
    names = [part.partition(".")[0] for part in parts]
    return next((one for one in reversed(names) if not one.isdecimal()), None)
