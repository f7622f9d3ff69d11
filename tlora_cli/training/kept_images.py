"""Small copies of the training pictures, kept with a run so that its report needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from tlora_cli.foundation.pictures import save_png
from tlora_cli.photos.training_images import TrainingImage

SIDE = 256
"""Longest side of a copy in pixels."""


@dataclass(frozen=True)
class SmallPicture:
    """A training picture as it was cropped, RGB, and its mask, L, or None."""

    picture: Image.Image
    mask: Image.Image | None


def small_pictures(images: Sequence[TrainingImage]) -> list[SmallPicture]:
    """Return copies of at most `SIDE` pixels."""
    return [
        SmallPicture(
            _small((image.pixels + 1) / 2), None if image.mask is None else _small(image.mask)
        )
        for image in images
    ]


def _small(values: Tensor) -> Image.Image:
    """Return a picture of (C, H, W) values in [0, 1]."""
    levels = (values * 255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(levels if levels.shape[2] == 3 else levels[:, :, 0])
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return picture


def keep_pictures(pictures: Sequence[SmallPicture], folder: Path) -> None:
    """Write `000.png`, `000-mask.png` and so on, each atomically."""
    for number, one in enumerate(pictures):
        save_png(one.picture, folder / f"{number:03d}.png")
        if one.mask is not None:
            save_png(one.mask, folder / f"{number:03d}-mask.png")


def kept_pictures(folder: Path) -> list[tuple[Path, Path | None]]:
    """Return the kept files, and of each its mask; none for a run of before they were kept."""
    found = sorted(file for file in folder.glob("*.png") if file.stem.isdigit())
    masks = [file.with_name(f"{file.stem}-mask.png") for file in found]
    return [
        (file, mask if mask.exists() else None) for file, mask in zip(found, masks, strict=True)
    ]


def square_sheet(pictures: Sequence[Image.Image], side: int) -> Image.Image:
    """Return square pictures in rows, on white.

    Args:
        pictures: at least one.
        side: of each on the sheet, in pixels.
    """
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * (side + GAP) - GAP, rows * (side + GAP) - GAP), "white")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        large = picture.width < side
        way = Image.Resampling.NEAREST if large else Image.Resampling.LANCZOS
        place = (column * (side + GAP), row * (side + GAP))
        sheet.paste(picture.resize((side, side), way), place)
    return sheet


GAP = 4
"""Pixels between the pictures of a sheet."""
