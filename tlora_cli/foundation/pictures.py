"""Picture files of strangers: read within bounds of memory, and never by starting a program."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_atomically
from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.foundation.untrusted_json import parse_json

_Result = TypeVar("_Result")

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Formats that are decoded; Pillow's others are left out, since some start other programs."""
MAX_PIXELS = 110_000_000
"""Larger pictures are refused before decoding: a small file can claim any size. The largest camera
sensors have about 100 million pixels; reading that many takes up to 1.6 GB."""
MAX_PIXELS_OF = {"WEBP": 50_000_000}
"""Format -> its own bound; the decoder of WebP holds several copies of the picture."""
STRIP = 4_000_000
"""Pixels that are converted at once."""


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG atomically.

    Raises:
        UserError: if the disk is full or the folder can't be written.
    """
    write_atomically(path, lambda file: picture.save(file, format="PNG"))


def read_picture(path: Path, where: str, mode: str) -> Image.Image:
    """Return the upright picture, transparency put on white (RGB) or black (L).

    An animation gives its first frame.

    Args:
        path: the file.
        where: what names it, for messages: a key of the recipe, or the path.
        mode: RGB or L.

    Raises:
        UserError: whatever goes wrong.
    """
    return _decoded(path, where, lambda picture: _converted(picture, mode))


def read_alpha(path: Path, where: str) -> Image.Image | None:
    """Return how opaque the upright picture is, mode L; None if it is opaque everywhere.

    Arguments and errors are those of `read_picture`.
    """
    return _decoded(path, where, _alpha)


def _decoded(path: Path, where: str, convert: Callable[[Image.Image], _Result]) -> _Result:
    """Return what is made of the upright picture."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError("it is not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as picture:
                _check_size(picture)
                ImageOps.exif_transpose(picture, in_place=True)
                return convert(picture)
    except Exception as error:  # decoders raise anything on a damaged file, even SyntaxError
        raise UserError(
            f"{path} can't be read: {_reason(path, error)}",
            where=where,
            do="open it in an image editor and save it as an 8-bit PNG or JPEG, or leave it out",
        ) from error


def picture_text(path: Path, key: str) -> str | None:
    """Return a text that stands beside the pixels, such as a PNG's text chunk; None if it doesn't.

    Raises:
        UserError: if the picture can't be opened.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            found = picture.info.get(key)
    except Exception as error:  # as above
        raise UserError(
            f"{path} can't be read: {_reason(path, error)}", str(path), "remove it, or save it anew"
        ) from error
    return found if isinstance(found, str) else None


def picture_settings(file: Path) -> dict[str, Any]:
    """Return what a PNG that tlora wrote says of itself; empty for any other picture.

    Raises:
        UserError: if it can't be opened.
    """
    said = picture_text(file, PRODUCT)
    try:
        values = parse_json(said) if said else {}
    except ValueError:  # another program's idea of that key
        return {}
    return values if isinstance(values, dict) else {}


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        if path.stat().st_size == 0:
            return "the file is empty"
        return "it is damaged, or not a JPEG, PNG, WebP, TIFF, BMP or GIF picture"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS // 10**6} million pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _check_size(picture: Image.Image) -> None:
    width, height = picture.size
    if width < 1 or height < 1:
        raise ValueError(f"it is {width} x {height} pixels")
    most = MAX_PIXELS_OF.get(picture.format or "", MAX_PIXELS)
    if width * height > most:
        raise ValueError(f"it is {width} x {height} pixels, more than {most // 10**6} million")


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    """Return the picture in mode RGB on white, or L on black."""
    if picture.mode.startswith("I"):  # 16 bits; I is how Pillow opened them once
        return _by_strips(picture, mode, lambda strip: _eight_bits(strip).convert(mode))
    if picture.mode == "F":
        raise ValueError("its values are floating-point numbers, whose range is not known")
    if picture.has_transparency_data:
        color = "white" if mode == "RGB" else "black"
        return _by_strips(picture, mode, lambda strip: _on_ground(strip, color).convert(mode))
    picture.load()
    return picture if picture.mode == mode else picture.convert(mode)


def _alpha(picture: Image.Image) -> Image.Image | None:
    if picture.mode.startswith(("I", "F")) or not picture.has_transparency_data:
        return None
    alpha = _by_strips(picture, "L", lambda strip: strip.convert("RGBA").getchannel("A"))
    return None if alpha.getextrema() == (255, 255) else alpha


def _by_strips(
    picture: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Return the picture converted a few rows at a time, so that no second copy is whole."""
    whole = Image.new(mode, picture.size)
    rows = max(1, STRIP // picture.width)
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            strip = picture.crop((0, top, picture.width, bottom))
        whole.paste(convert(strip), (0, top))
    return whole


def _eight_bits(strip: Image.Image) -> Image.Image:
    values = np.asarray(strip).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("its values have more than 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _on_ground(strip: Image.Image, color: str) -> Image.Image:
    ground = Image.new("RGBA", strip.size, color)
    return Image.alpha_composite(ground, strip.convert("RGBA"))
