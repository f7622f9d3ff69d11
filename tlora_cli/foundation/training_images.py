"""Picture files -> training tensors: find, read, crop, resize; subject masks likewise.

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

from tlora_cli.foundation.bundled import bundle_of_picture, picture_files
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.pictures import read_picture

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Names that count as pictures in a folder; a file named by itself may be called anything."""

_IMAGES_KEY, _MASKS_KEY = "concept.images", "concept.masks"


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """A picture as the training sees it.

    Attributes:
        path: the file.
        pixels: (3, resolution, resolution) float32 in [-1, 1].
        mask: (1, resolution, resolution) float32 in [0, 1], 1 on the subject; None: all counts.
        crop: side in pixels of the center square before resizing.
    """

    path: Path
    pixels: Tensor
    mask: Tensor | None
    crop: int


def find_images(spec: str | Sequence[str], key: str) -> list[Path]:
    """Return the files that a recipe entry names, at least one.

    Args:
        spec: a picture; a folder, of which the files with a known ending are taken in the order of
            their names (no hidden files, no subfolders); the name of a bundle's pictures
            (`bundled.picture_files`); or a list of pictures.
        key: the entry, for messages, e.g. `concept.images`.

    Raises:
        UserError: if something named is missing or not a file, or nothing is found.
    """
    if isinstance(spec, str):
        path = Path(spec).expanduser()
        return _list_folder(path, key) if _is_folder(path, key) else _named(spec, key)
    if not spec:
        raise UserError("the list of pictures is empty", where=key, do="name at least one picture")
    return [path for name in spec for path in _named(name, key)]


def load_training_images(
    images: str | Sequence[str], masks: str | Sequence[str] | None, resolution: int
) -> list[TrainingImage]:
    """Read the training pictures and their subject masks.

    Orientation tags are obeyed, transparency is put on white (in masks on black), animations give
    their first frame. A picture smaller than the resolution is enlarged, with a warning.

    Args:
        images: what `find_images` takes.
        masks: the same for masks. A folder is matched by file name without its ending, a list by
            position, a single file belongs to a single picture.
        resolution: side of the result in pixels.

    Raises:
        UserError: if a file is missing or can't be read, or a mask does not fit its picture.
    """
    paths = find_images(images, _IMAGES_KEY)
    mask_paths = [None] * len(paths) if masks is None else match_masks(paths, masks)
    pairs = zip(paths, mask_paths, strict=True)
    return [load_training_image(path, mask, resolution) for path, mask in pairs]


def latent_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """Average a mask (1, H, W) over the areas of latent pixels; return (1, height, width)."""
    return torch.nn.functional.adaptive_avg_pool2d(mask, (height, width))


# --- finding files --------------------------------------------------------------------------------


def _is_folder(path: Path, key: str) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise _unreachable(path, error, key) from error


def _list_folder(folder: Path, key: str) -> list[Path]:
    try:
        found = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in EXTENSIONS
            and not path.name.startswith(".")
            and not path.is_dir()
        )
    except OSError as error:
        raise _unreachable(folder, error, key) from error
    if not found:
        raise UserError(
            f"no picture is in the folder {folder}",
            where=key,
            do=f"put pictures there ({' '.join(EXTENSIONS)}; subfolders are not searched)",
        )
    return [_check_file(str(path), key) for path in found]


def _named(name: str, key: str) -> list[Path]:
    if bundle := bundle_of_picture(name):
        return picture_files(bundle, name, key, masks=key == _MASKS_KEY)
    return [_check_file(name, key)]


def _check_file(name: str, key: str) -> Path:
    path = Path(name).expanduser()
    try:
        if path.is_file():
            return path
        found = path.exists()
    except OSError as error:
        raise _unreachable(path, error, key) from error
    if found:
        raise UserError(f"{name!r} is not a file", where=key, do="name a picture file")
    if path.is_symlink():
        raise UserError(f"{name!r} is a broken link", where=key, do="mend or remove the link")
    raise UserError(
        f"there is no file {name!r}",
        where=key,
        do=f"check the name; relative names start at {Path.cwd()}",
    )


def _unreachable(path: Path, error: OSError, key: str) -> UserError:
    reason = error.strerror or str(error)
    return UserError(
        f"{path} can't be opened: {reason}", where=key, do="check the name and its permissions"
    )


def match_masks(paths: list[Path], masks: str | Sequence[str]) -> list[Path]:
    """Return the mask of each picture.

    Raises:
        UserError: if one is missing, or which is whose can't be told.
    """
    found = find_images(masks, _MASKS_KEY)
    if isinstance(masks, str) and _is_folder(Path(masks).expanduser(), _MASKS_KEY):
        matched = [_mask_of(path, found, masks) for path in paths]
    elif len(found) == len(paths):
        matched = found
    else:
        raise UserError(
            f"there are {len(paths)} pictures and {len(found)} masks",
            where=_MASKS_KEY,
            do="give one mask for each picture, in the same order, or a folder of masks",
        )
    for path, mask in zip(paths, matched, strict=True):
        if path.resolve() == mask.resolve():
            raise UserError(
                f"{path} is named as its own mask",
                where=_MASKS_KEY,
                do="name a black picture that is white where the subject is",
            )
    return matched


def _mask_of(path: Path, masks: list[Path], folder: str) -> Path:
    matching = [mask for mask in masks if mask.stem == path.stem]
    if len(matching) == 1:
        return matching[0]
    if matching:
        what = f"{len(matching)} masks are there for {path.name}: "
        what += ", ".join(mask.name for mask in matching)
        raise UserError(what, where=f"{_MASKS_KEY}: {folder}", do="leave only one of them")
    raise UserError(
        f"there is no mask for {path.name}",
        where=f"{_MASKS_KEY}: {folder}",
        do=f"add {path.stem}.png, or drop {_MASKS_KEY}",
    )


# --- reading --------------------------------------------------------------------------------------


def load_training_image(path: Path, mask_path: Path | None, resolution: int) -> TrainingImage:
    """Read one picture and its mask; see `load_training_images`."""
    picture = read_picture(path, _IMAGES_KEY, "RGB")
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
    return TrainingImage(path, pixels, mask, crop)


def _load_mask(mask_path: Path, path: Path, size: tuple[int, int], resolution: int) -> Tensor:
    mask = read_picture(mask_path, _MASKS_KEY, "L")
    if mask.size != size:
        raise UserError(
            f"the mask {mask_path} is {_size(mask.size)} pixels, but {path} is {_size(size)}",
            where=_MASKS_KEY,
            do="make the mask exactly as large as its picture",
        )
    shrinks = min(mask.size) >= resolution
    resampling = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    square = _to_tensor(_center_square(mask, resolution, resampling))
    if not square.any():
        everywhere = mask.getextrema() == (0, 0)
        raise UserError(
            f"the mask {mask_path} is black{'' if everywhere else ' in the center square'}",
            where=_MASKS_KEY,
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
