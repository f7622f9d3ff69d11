"""Picture files -> training tensors: read, crop, resize; subject masks likewise.

Published recipe: center crop to a square, Lanczos to the training resolution, values in [-1, 1].
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.pictures import read_picture
from tlora_cli.photos.finding import IMAGES_KEY, MASKS_KEY, find_images, match_masks

TOUCH = 0.25
"""Share of a pixel that the subject must cover to be seen there at all."""


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """A picture as the training sees it.

    Attributes:
        path: the file.
        pixels: (3, resolution, resolution) float32 in [-1, 1].
        mask: (1, resolution, resolution) float32 in [0, 1], 1 on the subject; None: all counts.
        crop: side in pixels of the center square before resizing.
        touched: whether a place of the latent that the mask touches counts fully, not by its share.
    """

    path: Path
    pixels: Tensor
    mask: Tensor | None
    crop: int
    touched: bool = False


def load_training_images(
    images: str | Sequence[str],
    masks: str | Sequence[str] | None,
    resolution: int,
    *,
    touched: bool = False,
) -> list[TrainingImage]:
    """Read the training pictures and their subject masks.

    Orientation tags are obeyed, transparency is put on white (in masks on black), animations give
    their first frame. A picture smaller than the resolution is enlarged, with a warning.

    Args:
        images: what `find_images` takes.
        masks: the same for masks. A folder is matched by file name without its ending, a list by
            position, a single file belongs to a single picture.
        resolution: side of the result in pixels.
        touched: of the result (`TrainingImage.touched`).

    Raises:
        UserError: if a file is missing or can't be read, or a mask does not fit its picture.
    """
    paths = find_images(images, IMAGES_KEY)
    mask_paths = [None] * len(paths) if masks is None else match_masks(paths, masks)
    pairs = zip(paths, mask_paths, strict=True)
    return [load_training_image(path, mask, resolution, touched=touched) for path, mask in pairs]


def latent_mask(mask: Tensor, height: int, width: int, *, touched: bool = False) -> Tensor:
    """Return how much each place of the latent counts, (1, height, width) in [0, 1].

    Args:
        mask: (1, H, W).
        height: of the latent.
        width: of the latent.
        touched: count a place fully that the subject touches, and any other not at all. Else each
            counts by the share of it that is the subject, so that thin parts, as antennae or a
            tail, weigh little.
    """
    if touched:
        most = torch.nn.functional.adaptive_max_pool2d(mask, (height, width))
        return (most >= TOUCH).to(mask.dtype)
    return torch.nn.functional.adaptive_avg_pool2d(mask, (height, width))


def load_training_image(
    path: Path, mask_path: Path | None, resolution: int, *, touched: bool = False
) -> TrainingImage:
    """Read one picture and its mask; see `load_training_images`."""
    picture = read_picture(path, IMAGES_KEY, "RGB")
    size, crop = picture.size, min(picture.size)
    if crop < resolution:
        warnings.warn(
            f"{path} is {_size(size)} pixels and is enlarged to {resolution} x {resolution}; "
            "the adapter will learn its blur",
            stacklevel=3,
        )
    square = _center_square(picture, resolution, Image.Resampling.LANCZOS)
    pixels = _to_tensor(square) * 2 - 1
    del picture  # it may be large, and so may its mask
    mask = None if mask_path is None else _load_mask(mask_path, path, size, resolution)
    return TrainingImage(path, pixels, mask, crop, touched)


def _load_mask(mask_path: Path, path: Path, size: tuple[int, int], resolution: int) -> Tensor:
    mask = read_picture(mask_path, MASKS_KEY, "L")
    if mask.size != size:
        raise UserError(
            f"the mask {mask_path} is {_size(mask.size)} pixels, but {path} is {_size(size)}",
            where=MASKS_KEY,
            do="make the mask exactly as large as its picture",
        )
    shrinks = min(mask.size) >= resolution
    resampling = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    square = _to_tensor(_center_square(mask, resolution, resampling))
    if not square.any():
        everywhere = mask.getextrema() == (0, 0)
        raise UserError(
            f"the mask {mask_path} is black{'' if everywhere else ' in the center square'}",
            where=MASKS_KEY,
            do="paint the subject white"
            if everywhere
            else "crop picture and mask so that the subject is in their center",
        )
    return square


def _size(size: tuple[int, int]) -> str:
    return "{} x {}".format(*size)


def _center_square(
    picture: Image.Image, resolution: int, resampling: Image.Resampling
) -> Image.Image:
    crop = min(picture.size)
    left, top = (picture.width - crop) // 2, (picture.height - crop) // 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size was judged
        square = picture.crop((left, top, left + crop, top + crop))
    return square.resize((resolution, resolution), resampling)


def _to_tensor(picture: Image.Image) -> Tensor:
    """Return (C, H, W) float32 in [0, 1]."""
    values = torch.from_numpy(np.array(picture))
    channels = values.unsqueeze(0) if values.ndim == 2 else values.permute(2, 0, 1)
    return channels.float().div(255).contiguous()
