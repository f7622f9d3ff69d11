"""Picture files of strangers: read within bounds of memory, and never by starting a program."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from tlora_cli.foundation.colors import Convert, to_srgb
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_atomically
from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.foundation.untrusted_json import parse_json

_Result = TypeVar("_Result")

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF")
"""Formats that are decoded; Pillow's others are left out, since some start other programs. AVIF
needs Pillow 11.3, and HEIF, which phones write, the package pillow-heif."""
_OF_PHONES = {"heic": "HEIC", "heix": "HEIC", "mif1": "HEIC", "msf1": "HEIC", "avif": "AVIF"}
"""Brand in the first bytes of a file -> what people call it (ISO/IEC 23008-12, AVIF)."""
_READERS = {
    "HEIC": "pip install 'tlora[heic]', which reads it; or save it as a JPEG on the phone",
    "AVIF": "pip install --upgrade pillow, which reads it from 11.3 on; or save it as a JPEG",
}
"""Format of phones -> what to do where nothing reads it."""
MAX_PIXELS = 110_000_000
"""Larger pictures are refused before decoding: a small file can claim any size. The largest camera
sensors have about 100 million pixels; reading that many takes up to 1.6 GB."""
MAX_PIXELS_OF = {"WEBP": 50_000_000, "AVIF": 50_000_000, "HEIF": 50_000_000}
"""Format -> its own bound; these decoders hold several copies of the picture."""
_ANIMATED = ("GIF", "WEBP", "PNG", "TIFF", "AVIF")
"""Formats in which several pictures are an animation or pages, not small copies of the one."""
STRIP = 4_000_000
"""Pixels that are converted at once."""


def save_png(picture: Image.Image, path: Path, texts: Mapping[str, str] | None = None) -> None:
    """Write a PNG atomically.

    Args:
        picture: what is written.
        path: the file.
        texts: what stands beside the pixels, by its key (`picture_text`).

    Raises:
        UserError: if the disk is full or the folder can't be written.
    """
    about = PngInfo()
    for key, text in (texts or {}).items():
        about.add_itxt(key, text)
    write_atomically(path, lambda file: picture.save(file, format="PNG", pnginfo=about))


def read_picture(path: Path, where: str, mode: str) -> Image.Image:
    """Return the upright picture, transparency put on white (RGB) or black (L).

    An animation gives its first frame. Colors are those of the file's profile, in sRGB
    (`foundation.colors`); of L, which masks are read as, the numbers stay as they are.

    Args:
        path: the file.
        where: what names it, for messages: a key of the recipe, or the path.
        mode: RGB or L.

    Raises:
        UserError: whatever goes wrong.
    """
    return _decoded(path, where, lambda picture: _converted(picture, mode, str(path)))


def picture_size(path: Path, where: str) -> tuple[int, int]:
    """Return width and height of the upright picture; its pixels are not decoded.

    Arguments and errors are those of `read_picture`.
    """
    return _opened(path, where, _upright_size)


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    width, height = picture.size
    on_its_side = picture.getexif().get(_ORIENTATION, 1) >= _FIRST_ON_ITS_SIDE
    return (height, width) if on_its_side else (width, height)


_ORIENTATION, _FIRST_ON_ITS_SIDE = 0x0112, 5
"""The EXIF tag, and the first of its values that turn a picture by a quarter."""


def read_alpha(path: Path, where: str) -> Image.Image | None:
    """Return how opaque the upright picture is, mode L; None if it is opaque everywhere.

    Arguments and errors are those of `read_picture`.
    """
    return _decoded(path, where, _alpha)


def _decoded(path: Path, where: str, convert: Callable[[Image.Image], _Result]) -> _Result:
    """Return what is made of the upright picture."""

    def upright(picture: Image.Image) -> _Result:
        ImageOps.exif_transpose(picture, in_place=True)
        return convert(picture)

    return _opened(path, where, upright)


def _opened(path: Path, where: str, convert: Callable[[Image.Image], _Result]) -> _Result:
    """Return what is made of the picture as the file has it."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError("it is not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with open_picture(path) as picture:
                _check_size(picture)
                return convert(picture)
    except Exception as error:  # decoders raise anything on a damaged file, even SyntaxError
        raise UserError(
            f"{path} can't be read: {_reason(path, error)}",
            where=where,
            do=_remedy(path),
        ) from error


def open_picture(path: Path) -> Image.Image:
    """Return a picture that is not yet decoded; Pillow's errors are let through."""
    _use_pillow_heif()
    return Image.open(path, formats=[one for one in FORMATS if one in _known_formats()])


@cache
def _use_pillow_heif() -> bool:
    """Let Pillow read HEIC, if pillow-heif is installed; return whether it is."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


@cache
def _known_formats() -> frozenset[str]:
    Image.init()
    return frozenset(Image.OPEN)


def kind_of_phone(path: Path) -> str:
    """Return HEIC or AVIF for a file that is one, and nothing for another."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return ""
    return _OF_PHONES.get(start[8:12].decode("latin-1"), "") if start[4:8] == b"ftyp" else ""


def _remedy(path: Path) -> str:
    kind = kind_of_phone(path)
    if kind and kind not in _readable():
        return _READERS[kind]
    return "open it in an image editor and save it as an 8-bit PNG or JPEG, or leave it out"


def picture_text(path: Path, key: str) -> str | None:
    """Return a text that stands beside the pixels, such as a PNG's text chunk; None if it doesn't.

    Raises:
        UserError: if the picture can't be opened.
    """
    try:
        with open_picture(path) as picture:
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
        if (kind := kind_of_phone(path)) and kind not in _readable():
            return f"it is {kind}, as phones take photos, and no package here reads that"
        return "it is damaged, or not a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS // 10**6} million pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _readable() -> list[str]:
    """Return which of a phone's formats can be read here."""
    return [
        *(["HEIC"] if _use_pillow_heif() else []),
        *(["AVIF"] if "AVIF" in _known_formats() else []),
    ]


def _check_size(picture: Image.Image) -> None:
    width, height = picture.size
    if width < 1 or height < 1:
        raise ValueError(f"it is {width} x {height} pixels")
    most = MAX_PIXELS_OF.get(picture.format or "", MAX_PIXELS)
    if width * height > most:
        raise ValueError(f"it is {width} x {height} pixels, more than {most // 10**6} million")


def _converted(picture: Image.Image, mode: str, name: str) -> Image.Image:
    """Return the picture in mode RGB on white, in sRGB, or L on black."""
    if mode == "RGB" and picture.format in _ANIMATED and getattr(picture, "n_frames", 1) > 1:
        frames = getattr(picture, "n_frames", 1)
        warnings.warn(f"{name} has {frames} pictures, and the first is used", stacklevel=2)
    convert = to_srgb(picture, name) if mode == "RGB" else None
    if convert is not None and picture.mode != "F":
        return _by_strips(picture, mode, lambda strip: _in_srgb(strip, convert))
    if picture.mode.startswith("I"):  # 16 bits; I is how Pillow opened them once
        return _by_strips(picture, mode, lambda strip: _eight_bits(strip).convert(mode))
    if picture.mode == "F":
        raise ValueError("its values are floating-point numbers, whose range is not known")
    if picture.has_transparency_data:
        color = "white" if mode == "RGB" else "black"
        return _by_strips(picture, mode, lambda strip: _on_ground(strip, color).convert(mode))
    picture.load()
    return picture if picture.mode == mode else picture.convert(mode)


def _in_srgb(strip: Image.Image, convert: Convert) -> Image.Image:
    """Return a part of a picture in sRGB, on white."""
    if strip.mode.startswith("I"):
        return convert(_eight_bits(strip))
    if strip.mode in ("L", "CMYK") and not strip.has_transparency_data:
        return convert(strip)
    if strip.mode in ("L", "LA"):
        colors = convert(strip.convert("LA").getchannel("L"))
    elif strip.has_transparency_data:
        colors = convert(strip.convert("RGBA").convert("RGB"))
    else:
        return convert(strip.convert("RGB"))
    if strip.has_transparency_data:
        colors.putalpha(strip.convert("RGBA").getchannel("A"))
        return _on_ground(colors, "white").convert("RGB")
    return colors


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
