"""The threshold between real and mismatched pairs. Pure functions on similarities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Threshold:
    """The least similarity that counts, and how well it tells pairs apart.

    Attributes:
        value: what is at or above it counts.
        real: number of real pairs; 0 where the user gave the value.
        mismatched: number of mismatched pairs; 0 likewise.
        missed: share of the real pairs that lie below it; None likewise.
        passed: share of the mismatched pairs that don't; None likewise.
    """

    value: float
    real: int = 0
    mismatched: int = 0
    missed: float | None = None
    passed: float | None = None

    @property
    def accuracy(self) -> float | None:
        """The mean share of pairs on the right side (balanced accuracy); 0.5 is chance."""
        if self.missed is None or self.passed is None:
            return None
        return 1 - (self.missed + self.passed) / 2


def separate(real: Tensor, mismatched: Tensor) -> Threshold | None:
    """Return the threshold with the best balanced accuracy, the mean of both shares on its side.

    Candidates are the middles between neighboring values of all pairs; of equally good ones the
    highest is taken, so that less counts by chance. Values that are no finite numbers are left out.

    Args:
        real: (N,) similarities of pairs that belong together.
        mismatched: (M,) similarities of pairs that don't.

    Returns:
        None if either side has no pair, or all pairs have one value.
    """
    real, mismatched = (side[side.isfinite()].double() for side in (real, mismatched))
    values = torch.unique(torch.cat([real, mismatched]))  # sorted
    if not len(real) or not len(mismatched) or len(values) < 2:
        return None
    middles = (values[1:] + values[:-1]) / 2
    missed = torch.searchsorted(real.sort().values, middles) / len(real)
    passed = 1 - torch.searchsorted(mismatched.sort().values, middles) / len(mismatched)
    errors = missed.double() + passed.double()
    best = int((errors <= errors.min() + 1e-9).nonzero().max())
    return Threshold(
        float(middles[best]),
        len(real),
        len(mismatched),
        float(missed[best]),
        float(passed[best]),
    )
