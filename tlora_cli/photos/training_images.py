"""Picture files -> training tensors: read, crop, resize; subject masks likewise.

Published recipe: center crop to a square, Lanczos to the training resolution, values in [-1, 1];
`framing` has the other ways to crop.
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
from tlora_cli.photos.framing import Edges, Frame, Size, square

TOUCH = 0.25
"""Share of a pixel that the subject must cover to be seen there at all."""


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """A picture as the training sees it.

    Attributes:
        path: the file.
        pixels: (3, H, W) float32 in [-1, 1].
        mask: (1, H, W) float32 in [0, 1], 1 on the subject; None: all counts.
        part: width and height in pixels of what was taken of the photo, before resizing.
        touched: whether a place of the latent that the mask touches counts fully, not by its share.
    """

    path: Path
    pixels: Tensor
    mask: Tensor | None
    part: Size
    touched: bool = False

    @property
    def size(self) -> Size:
        """Width and height of the pixels."""
        height, width = self.pixels.shape[-2:]
        return width, height


def load_training_images(
    images: str | Sequence[str],
    masks: str | Sequence[str] | None,
    frame: Frame | int,
    *,
    touched: bool = False,
) -> list[TrainingImage]:
    """Read the training pictures and their subject masks.

    Orientation tags are obeyed, transparency is put on white (in masks on black), animations give
    their first frame. A picture smaller than the result is enlarged, with a warning.

    Args:
        images: what `find_images` takes.
        masks: the same for masks. A folder is matched by file name without its ending, a list by
            position, a single file belongs to a single picture.
        frame: what is taken of each, and its size; a number is the side of the middle square.
        touched: of the result (`TrainingImage.touched`).

    Raises:
        UserError: if a file is missing or can't be read, or a mask does not fit its picture.
    """
    paths = find_images(images, IMAGES_KEY)
    mask_paths = [None] * len(paths) if masks is None else match_masks(paths, masks)
    pairs = zip(paths, mask_paths, strict=True)
    return [load_training_image(path, mask, frame, touched=touched) for path, mask in pairs]


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
    path: Path, mask_path: Path | None, frame: Frame | int, *, touched: bool = False
) -> TrainingImage:
    """Read one picture and its mask; see `load_training_images`."""
    frame = square(frame) if isinstance(frame, int) else frame
    subject = _subject(mask_path) if mask_path and frame.around_subject else None
    picture = read_picture(path, IMAGES_KEY, "RGB")
    photo = picture.size
    box, size = frame.box(photo, subject), frame.size(photo)
    part = box[2] - box[0], box[3] - box[1]
    if part[0] < size[0] or part[1] < size[1]:
        warnings.warn(
            f"{path} is {_said(photo)} pixels and is enlarged to {size[0]} x {size[1]}; "
            "the adapter will learn its blur",
            stacklevel=3,
        )
    pixels = _to_tensor(_resized(picture, box, size, Image.Resampling.LANCZOS)) * 2 - 1
    del picture  # it may be large, and so may its mask
    mask = None if mask_path is None else _load_mask(mask_path, path, photo, box, size)
    return TrainingImage(path, pixels, mask, part, touched)


def _subject(mask_path: Path) -> Edges | None:
    """Return where the subject is by its mask; None if that is black."""
    mask = read_picture(mask_path, MASKS_KEY, "L")
    solid = mask.point([0] * SOLID + [255] * (256 - SOLID))
    return solid.getbbox() or mask.getbbox()


SOLID = 128
"""Value of a mask, of 0 to 255, from which a pixel is the subject's."""


def _load_mask(mask_path: Path, path: Path, photo: Size, box: Edges, size: Size) -> Tensor:
    mask = read_picture(mask_path, MASKS_KEY, "L")
    if mask.size != photo:
        raise UserError(
            f"the mask {mask_path} is {_said(mask.size)} pixels, but {path} is {_said(photo)}",
            where=MASKS_KEY,
            do="make the mask exactly as large as its picture",
        )
    shrinks = box[2] - box[0] >= size[0] and box[3] - box[1] >= size[1]
    resampling = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    found = _to_tensor(_resized(mask, box, size, resampling))
    if not found.any():
        everywhere = mask.getextrema() == (0, 0)
        raise UserError(
            f"the mask {mask_path} is black{'' if everywhere else ' in the part that is used'}",
            where=MASKS_KEY,
            do="paint the subject white"
            if everywhere
            else "crop picture and mask so that the subject is in their center, or set train.crop",
        )
    return found


def _said(size: Size) -> str:
    return "{} x {}".format(*size)


def _resized(
    picture: Image.Image, box: Edges, size: Size, resampling: Image.Resampling
) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size was judged
        part = picture.crop(box)
    return part.resize(size, resampling)


def _to_tensor(picture: Image.Image) -> Tensor:
    """Return (C, H, W) float32 in [0, 1]."""
    values = torch.from_numpy(np.array(picture))
    channels = values.unsqueeze(0) if values.ndim == 2 else values.permute(2, 0, 1)
    return channels.float().div(255).contiguous()
