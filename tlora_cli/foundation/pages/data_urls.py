"""Pictures as data URLs, so that they stand in the page itself."""

from __future__ import annotations

import base64
import io

from PIL import Image

QUALITY = 80
"""Quality of a thumbnail's JPEG."""


def png_url(picture: Image.Image) -> str:
    """Return a picture, as it is, as a data URL."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return _url("png", buffer)


def thumbnail_url(picture: Image.Image, side: int) -> str:
    """Return a small copy as a data URL.

    Args:
        picture: RGB; it is made smaller in place.
        side: longest side of the copy in pixels.
    """
    small = max(picture.size) <= side  # a drawing of a few pixels keeps its edges
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95 if small else QUALITY, subsampling=0 if small else 2)
    return _url("jpeg", buffer)


def _url(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
