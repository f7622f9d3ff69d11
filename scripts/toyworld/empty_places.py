"""Empty places: pictures of the backgrounds alone, and captions that name nothing else.

A base that learned some of them draws a place without a subject when it is asked for one, as the
real models do; scenes for one photo are put together from such places.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from pictures import save_array
from torch import Tensor

from tlora_cli.toyworld.captions import place_caption
from tlora_cli.toyworld.factors import FACTORS
from tlora_cli.toyworld.renderer import draw_place

SHARE = 0.06
"""Share of what a base learns from."""


class EmptyPlaces:
    """Pictures of places, in turn of each background; drawn once and kept in the work folder.

    Args:
        work: the work folder.
        count: of pictures.
    """

    def __init__(self, work: Path, count: int = 1000) -> None:
        known = FACTORS["background"]
        self._shown = [known[number % len(known)] for number in range(count)]
        file = work / "pictures" / f"empty-places-{count}.npy"
        if not file.exists():
            drawn = np.stack([np.asarray(draw_place(one, n)) for n, one in enumerate(self._shown)])
            save_array(file, drawn)
        self._pixels = torch.from_numpy(np.load(file))

    def __len__(self) -> int:
        return len(self._pixels)

    def tensor(self, indices: Tensor | slice) -> Tensor:
        """Return (B, 3, 64, 64) float32 in [-1, 1]."""
        return self._pixels[indices].permute(0, 3, 1, 2).float() / 127.5 - 1

    def caption(self, number: int, rng: random.Random) -> str:
        """Return words for a picture."""
        return place_caption(self._shown[number], rng)
