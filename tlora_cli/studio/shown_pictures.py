"""Photos and masks as the page shows them: of a screen's size."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image

from tlora_cli.foundation.pictures import read_picture

SIDE = 1024
"""Longest side of what is shown, in pixels."""


def shown_photo(file: Path) -> bytes:
    """Return a photo, upright, as PNG.

    Raises:
        UserError: if it can't be read.
    """
    return _png(read_picture(file, "photo", "RGB"), Image.Resampling.LANCZOS)


def shown_mask(file: Path) -> bytes:
    """Return a mask as PNG, white and black with the same opacity.

    Raises:
        UserError: if it can't be read.
    """
    return _png(read_picture(file, "mask", "L"), Image.Resampling.BOX)


def _png(picture: Image.Image, resampling: Image.Resampling) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size was judged
        picture.thumbnail((SIDE, SIDE), resampling)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
