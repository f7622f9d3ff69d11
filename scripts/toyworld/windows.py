"""Windows of a quarter of a picture, anywhere or on its subject."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tlora_cli.toyworld.renderer import LEFT_TO_RIGHT, MIDDLE_HEIGHT

PLACES, PIXELS = 8, 4
"""Places of the latents on a side of a window, and pixels on a side of a place."""


def corners(count: int, positions: Sequence[str] | None, generator: torch.Generator) -> Tensor:
    """Return where windows begin (count, 2), down and across, in places of the latents.

    Args:
        count: windows.
        positions: of the subjects, if windows are to lie on them; or anywhere.
        generator: the source.
    """
    anywhere = torch.randint(PLACES + 1, (count, 2), generator=generator)
    if positions is None:
        return anywhere
    middles = torch.tensor([[MIDDLE_HEIGHT, LEFT_TO_RIGHT[one]] for one in positions])
    jitter = 12 * torch.rand(middles.shape, generator=generator) - 6
    begin = (middles - PLACES * PIXELS / 2 + jitter) / PIXELS
    return begin.round().long().clamp(0, PLACES)


def cut(values: Tensor, begin: Tensor, scale: int) -> Tensor:
    """Return a window of each: `scale` numbers of `values` (B, C, H, W) on a side are one place."""
    size = PLACES * scale
    at = (scale * begin).tolist()
    parts = zip(values, at, strict=True)
    return torch.stack([one[:, y : y + size, x : x + size] for one, (y, x) in parts])
