"""Small pictures for the tests, and what a loader makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlora_cli.foundation.errors import UserError
from tlora_cli.photos.training_images import load_training_images

KEY = "concept.images"


def drawing(width: int = 48, height: int = 40) -> Image.Image:
    """Return an RGB picture without any symmetry."""
    rows, columns = np.mgrid[0:height, 0:width]
    red = (columns * 5 + rows) % 256
    green = (rows * 6) % 256
    blue = ((columns // 8 + rows // 8) % 2) * 200
    return Image.fromarray(np.stack([red, green, blue], axis=2).astype(np.uint8))


def blob(width: int = 48, height: int = 40) -> Image.Image:
    """Return a mask with a soft edge, off the center."""
    rows, columns = np.mgrid[0:height, 0:width]
    distance = np.hypot(columns - width * 0.55, rows - height * 0.4)
    return Image.fromarray((255 * np.clip(12 - distance, 0, 1)).astype(np.uint8))


def load(path: Path, resolution: int = 16) -> torch.Tensor:
    [image] = load_training_images(str(path), None, resolution)
    assert image.path == path
    assert image.mask is None
    assert image.pixels.dtype == torch.float32
    assert image.pixels.shape == (3, resolution, resolution)
    return image.pixels


def reference(picture: Image.Image, resolution: int = 16) -> torch.Tensor:
    """Return the published preparation of an RGB picture, written out with Pillow."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    small = np.asarray(square.resize((resolution, resolution), Image.Resampling.LANCZOS))
    return torch.from_numpy(small.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)


def assert_same(got: torch.Tensor, expected: torch.Tensor, levels: float = 0.01) -> None:
    """Compare within so many of the 255 levels."""
    torch.testing.assert_close(got, expected, rtol=0, atol=levels / 127.5)


def refused(*words: str, call: Callable[[], object]) -> None:
    """Check that the call raises a UserError with these words and a remedy."""
    with pytest.raises(UserError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
    assert caught.value.do
