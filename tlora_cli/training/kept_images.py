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


def sheet_of(pictures: Sequence[Image.Image], side: int) -> Image.Image:
    """Return pictures in rows, on white.

    Args:
        pictures: at least one.
        side: the longer one of each on the sheet, in pixels.
    """
    fitted = [_fitted(picture, side) for picture in pictures]
    wide = max(picture.width for picture in fitted)
    high = max(picture.height for picture in fitted)
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * (wide + GAP) - GAP, rows * (high + GAP) - GAP), "white")
    for number, picture in enumerate(fitted):
        row, column = divmod(number, columns)
        spare = (wide - picture.width) // 2, (high - picture.height) // 2
        sheet.paste(picture, (column * (wide + GAP) + spare[0], row * (high + GAP) + spare[1]))
    return sheet


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    longest = max(picture.size)
    way = Image.Resampling.NEAREST if longest < side else Image.Resampling.LANCZOS
    width, height = (max(1, round(one * side / longest)) for one in picture.size)
    return picture.resize((width, height), way)


GAP = 4
"""Pixels between the pictures of a sheet."""
