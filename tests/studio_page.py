"""What the tests of the studio share: its address, and pictures to give."""

from __future__ import annotations

import io

from PIL import Image

from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.renderer import draw

TOKEN, PORT = "a-token-of-the-tests", 7861
ADDRESS = f"http://127.0.0.1:{PORT}"


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def drawing(concept: str = "luna") -> bytes:
    """Return a drawing of the built-in world, as a file."""
    return png(draw(CONCEPTS[concept].scenes()[0]).image)
