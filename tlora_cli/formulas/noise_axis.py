"""Timesteps by noise level: the axis on which the same level of noise has the same rank.

A timestep means another level of noise on a base with another noise schedule. On this axis a rank
schedule is read at u = T (1 - sigmoid(logsnr / s + b)), where logsnr is that of the base at t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

AXIS = "logsnr"
"""Its name in recipes and adapter files."""
MAX_LEVELS = 100_001
"""Far above the 1000 levels of every known base."""


@dataclass(frozen=True)
class NoiseAxis:
    """The noise levels of a base, and the line from them to timesteps.

    Args:
        scale, shift: s and b of a family, see `Family.noise_line`.
        signal: the signal's share of the variance at t = 0, 1, ..., from 1 (no noise) down to 0
            (noise alone): sigmoid(logsnr). For a diffusion base its alphas_cumprod.

    Raises:
        ValueError: for numbers that make no axis.
    """

    scale: float
    shift: float
    signal: Sequence[float] = field(repr=False)

    def __post_init__(self) -> None:
        if not (0 < self.scale < math.inf and math.isfinite(self.shift)):
            raise ValueError(f"the line of noise levels has scale {self.scale}, shift {self.shift}")
        if not 2 <= len(self.signal) <= MAX_LEVELS:
            raise ValueError(f"there are {len(self.signal)} noise levels, not 2..{MAX_LEVELS}")
        signal = tuple(float(share) for share in self.signal)
        if not all(0 <= share <= 1 for share in signal):
            raise ValueError("the signal's share must lie in 0..1")
        if any(after > before for before, after in pairwise(signal)):
            raise ValueError("the signal's share must not rise")
        object.__setattr__(self, "signal", signal)

    def timesteps(self, t: Tensor, top: int) -> Tensor:
        """Return u of the base's timesteps.

        Args:
            t: float64, of any shape; between whole timesteps u goes straight.
            top: T, the end of the axis: where there is noise alone, exactly.
        """
        table = _table(self, top, t.device)
        last = len(table) - 1
        low = t.floor().clamp(0, last)
        index = low.long()
        here = table[index]
        step = table[(index + 1).clamp(max=last)] - here
        return here + (t - low).clamp(0, 1) * step


# Copied to a device once, so that no call of the denoiser has to wait for it.
@cache
def _table(axis: NoiseAxis, top: int, device: torch.device) -> Tensor:
    """Return u at the whole timesteps of the base, float64."""
    import torch

    log_snr = torch.tensor(axis.signal, dtype=torch.float64).logit()
    u = top * (1 - (log_snr / axis.scale + axis.shift).sigmoid())
    # Rounding is undone: u of flow matching is t itself, and a rank falls at a whole timestep.
    return ((u * 1e9).round() / 1e9).to(device)
