"""The colors of a photograph -> sRGB, which models are trained on.

A file's numbers mean colors only with its profile: the same orange is another triple in Display P3,
which phones write, in Adobe RGB, which cameras write, and in sRGB. Files without a profile are
taken as sRGB, as before.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageCms
from PIL.ExifTags import IFD

Convert: TypeAlias = Callable[[Image.Image], Image.Image]
"""Turns a part of a picture, in one of the modes L, RGB, CMYK, into RGB in sRGB."""
Point: TypeAlias = tuple[float, float]

SAME = 2
"""Levels of 255 that a profile may differ from sRGB and still be taken as sRGB, so that pictures
whose profile is one of the several spellings of sRGB keep their numbers."""

WHITE: Point = (0.3127, 0.3290)
SRGB: tuple[Point, Point, Point] = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE: tuple[Point, Point, Point] = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3: tuple[Point, Point, Point] = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
REC2020: tuple[Point, Point, Point] = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
"""Chromaticities x, y of white D65 and of red, green, blue (IEC 61966-2-1, Adobe RGB (1998), SMPTE
EG 432-1, ITU-R BT.2020)."""
ADOBE_GAMMA = 563 / 256
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
"""Cone responses of XYZ, by which whites are adapted (ICC.1:2022, annex E)."""

UNCALIBRATED, INTEROPERABILITY = 0xFFFF, "R03"
"""EXIF's words for a color space that isn't sRGB, and for Adobe RGB (DCF 2.0)."""
COLOR_SPACE, INDEX = 0xA001, 1
NCLX: Mapping[int, tuple[Point, Point, Point] | None] = {1: None, 2: None, 9: REC2020, 12: P3}
"""Primaries by their number in HEIF (ITU-T H.273); None where sRGB's or unknown."""
BRIGHTER_THAN_WHITE = (16, 18)
"""Transfer functions of HDR there: PQ and HLG."""


def to_srgb(picture: Image.Image, name: str) -> Convert | None:
    """Return what turns parts of a picture into sRGB; None if its numbers are sRGB already.

    What can't be understood of its colors is told as a warning.

    Args:
        picture: as it was opened.
        name: what messages call it.
    """
    profile = picture.info.get("icc_profile")
    if picture.mode == "1":
        return None
    if profile:
        return _by_profile(profile, picture.mode, name)
    if picture.mode == "CMYK":
        _tell(name, "it has printing colors (CMYK) and no profile for them, so they are guessed")
        return None
    if picture.mode in ("L", "LA") or picture.mode.startswith(("I", "F")):
        return None
    return _by_marks(picture, name)


def _tell(name: str, what: str) -> None:
    warnings.warn(
        f"{name}: {what}; to be sure of its colors, save it in sRGB with an image editor",
        stacklevel=2,
    )


# --- profiles -------------------------------------------------------------------------------------

_CHANNELS = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def _by_profile(data: bytes, mode: str, name: str) -> Convert | None:
    own = (
        "CMYK" if mode == "CMYK" else "L" if mode in ("L", "LA", "La") or mode[0] == "I" else "RGB"
    )
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space
        if _CHANNELS.get(space) != own:
            _tell(name, f"its color profile is for {space.strip()}, not for its channels ({own})")
            return None
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            own,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        same = own != "CMYK" and _is_srgb(transform, own)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        _tell(name, "its color profile is damaged and is not used")
        return None
    return None if same else lambda part: _transformed(part, transform)


def _transformed(part: Image.Image, transform: Any) -> Image.Image:
    made = ImageCms.applyTransform(part, transform)
    assert made is not None, "it is not made in place"
    return made


def _is_srgb(transform: Any, mode: str) -> bool:
    """Whether a transform leaves colors all over the cube, and all grays, as they are."""
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    gray = np.arange(256, dtype=np.uint8).reshape(1, -1)
    if mode == "L":
        before = np.repeat(gray[..., None], 3, -1)
        after = _transformed(Image.fromarray(gray), transform)
    else:
        before = np.concatenate([cube, np.repeat(gray[..., None], 3, -1)], 1)
        after = _transformed(Image.fromarray(before), transform)
    return int(np.abs(np.asarray(after).astype(int) - before).max()) <= SAME


# --- what else a file says ------------------------------------------------------------------------


def _by_marks(picture: Image.Image, name: str) -> Convert | None:
    """Return the conversion for what EXIF, a PNG's chunks or HEIF say in place of a profile."""
    if (nclx := picture.info.get("nclx_profile")) is not None:
        if nclx.get("transfer_characteristics") in BRIGHTER_THAN_WHITE:
            _tell(name, "it is an HDR picture, whose brightness is not understood")
            return None
        primaries = NCLX.get(nclx.get("color_primaries", 2))
        return primaries and from_primaries(primaries)
    if "srgb" in picture.info:
        return None
    if (gamma := picture.info.get("gamma")) and picture.format == "PNG":
        points = picture.info.get("chromaticity")
        return _by_chunks(1 / gamma, points) if 0.01 < gamma < 10 else None
    try:
        exif = picture.getexif()
        index, space = exif.get_ifd(IFD.Interop).get(INDEX), exif.get_ifd(IFD.Exif).get(COLOR_SPACE)
    except Exception:  # damaged EXIF raises anything, and says nothing
        return None
    if str(index or "").strip("\0 ") == INTEROPERABILITY:
        return from_primaries(ADOBE, gamma=ADOBE_GAMMA)
    if space == UNCALIBRATED:
        _tell(name, "its EXIF says that its colors are not sRGB, and not which; they are taken so")
    return None


def _by_chunks(gamma: float, points: tuple[float, ...] | None) -> Convert | None:
    """Return the conversion of a PNG's gamma, and white, red, green, blue; None if it is sRGB's."""
    if points and len(points) == 8 and all(0 <= one <= 1 for one in points) and points[1]:
        white, *primaries = zip(points[::2], points[1::2], strict=True)
    else:
        white, primaries = WHITE, list(SRGB)
    apart = np.abs(np.array([white, *primaries]) - np.array([WHITE, *SRGB])).max()
    if abs(gamma - 2.2) < 0.05 and apart < 0.005:  # what programs write for sRGB
        return None
    try:
        return from_primaries((primaries[0], primaries[1], primaries[2]), white, gamma)
    except np.linalg.LinAlgError:  # points on a line
        return None


def from_primaries(
    primaries: tuple[Point, Point, Point], white: Point = WHITE, gamma: float | None = None
) -> Convert:
    """Return the conversion from an RGB space to sRGB; what lies outside is cut off.

    Args:
        primaries: x, y of red, green and blue.
        white: x, y of white.
        gamma: exponent that makes its values linear; None for sRGB's curve.
    """
    matrix = np.linalg.inv(_to_xyz(SRGB, WHITE)) @ _adapted(white) @ _to_xyz(primaries, white)
    levels = np.arange(256) / 255
    linear = (levels**gamma if gamma else _linear(levels)).astype(np.float32)
    turned = matrix.T.astype(np.float32)

    def convert(part: Image.Image) -> Image.Image:
        values = linear[np.asarray(part)] @ turned
        return Image.fromarray((_curve(values.clip(0, 1)) * 255).round().astype(np.uint8))

    return convert


def _to_xyz(primaries: tuple[Point, Point, Point], white: Point) -> Any:
    """Return the matrix from linear RGB to XYZ, of which (1, 1, 1) is white with Y = 1."""
    columns = np.array([[x, y, 1 - x - y] for x, y in primaries]).T
    return columns * np.linalg.solve(columns, _xyz(white))


def _xyz(point: Point) -> Any:
    x, y = point
    return np.array([x, y, 1 - x - y]) / y


def _adapted(white: Point) -> Any:
    """Return the matrix by which colors under a white become those under D65."""
    scale = (BRADFORD @ _xyz(WHITE)) / (BRADFORD @ _xyz(white))
    return np.linalg.inv(BRADFORD) @ np.diag(scale) @ BRADFORD


def _linear(values: Any) -> Any:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _curve(values: Any) -> Any:
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)
