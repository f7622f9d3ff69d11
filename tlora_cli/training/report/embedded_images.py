"""Pictures of a report: a thumbnail, and how alike two pictures are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tlora_cli.evaluation.metrics import copying
from tlora_cli.foundation.errors import UserError, system_reason
from tlora_cli.foundation.pages.data_urls import thumbnail_url
from tlora_cli.foundation.pictures import read_picture

SIDE = 384
"""Longest side of a thumbnail in pixels."""
GRID = 16
"""Pictures are compared at GRID x GRID pixels."""


@dataclass(frozen=True, eq=False)
class Seen:
    """The part of a picture that a report keeps.

    Attributes:
        url: a thumbnail, as a data URL.
        features: (3 GRID GRID,), of length one; zeros for a picture of a single color.
    """

    url: str
    features: Tensor

    @staticmethod
    def of(picture: Image.Image) -> Seen:
        """Look at an RGB picture."""
        features = _features(picture)
        return Seen(thumbnail_url(picture, SIDE), features)


def see(file: Path) -> Seen:
    """Look at a file; one that was seen before in this process is not read again.

    Raises:
        UserError: if it can't be read.
    """
    try:
        about = file.stat()
    except OSError as error:
        raise UserError(f"{file} can't be read: {system_reason(error)}", str(file)) from error
    return _see(file, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=1024)
def _see(file: Path, changed: int, size: int) -> Seen:
    return Seen.of(read_picture(file, str(file), "RGB"))


def _features(picture: Image.Image) -> Tensor:
    """Return the middle square at GRID x GRID pixels, each channel less its mean."""
    small = ImageOps.fit(picture, (GRID, GRID), Image.Resampling.BOX)
    values: Tensor = torch.from_numpy(np.asarray(small).copy()).double()
    values = (values - values.mean((0, 1))).flatten()
    return torch.nn.functional.normalize(values, dim=0)


def likeness(picture: Seen, training: Sequence[Seen]) -> float:
    """Return the correlation of colors with the most similar training picture, -1 to 1."""
    return copying(picture.features[None], torch.stack([one.features for one in training]))[0]
