"""Singular values of an adapter's matrices, and how many ranks they amount to.

The full matrix of an update is never built: for up (out, w) and down (w, in), QR of both leaves a
w x w core with the same singular values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SHARE = 0.95
"""Share of the sum (or energy) that the counted singular values hold; the paper's 95%."""


def singular_values(up: Tensor, down: Tensor | None = None) -> Tensor:
    """Return the singular values of `up @ down`, or of `up` alone, in falling order, float64.

    Args:
        up: (out, w).
        down: (w, in).
    """
    core = torch.linalg.qr(up.double()).R
    if down is not None:
        core = core @ torch.linalg.qr(down.double().T).R.T
    values: Tensor = torch.linalg.svdvals(core)
    return values


def rank_of_sum(values: Tensor) -> float:
    """Return how many values hold 95% of their sum (T-LoRA, figure 4)."""
    return _rank_holding(values)


def rank_of_energy(values: Tensor) -> float:
    """Return how many values hold 95% of the sum of squares."""
    return _rank_holding(values**2)


def _rank_holding(values: Tensor) -> float:
    total = values.sum()
    if total == 0:
        return 0.0
    held = values.cumsum(0) / total
    # A hair of room, or rounding would ask for one value more where the share is met exactly.
    return float((held < SHARE - 1e-12).sum() + 1)


def entropy_rank(values: Tensor) -> float:
    """Return exp of the entropy of the values as shares of their sum (Roy and Vetterli 2007)."""
    if values.sum() == 0:
        return 0.0
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


def stable_rank(values: Tensor) -> float:
    """Return the squared Frobenius norm over the squared spectral norm."""
    if values.sum() == 0:
        return 0.0
    return float((values**2).sum() / values.max() ** 2)


EFFECTIVE_RANKS: dict[str, Callable[[Tensor], float]] = {
    "95% of the sum": rank_of_sum,
    "95% of the energy": rank_of_energy,
    "entropy": entropy_rank,
    "stable": stable_rank,
}
"""Name -> function of the singular values. The first is the paper's; of an orthonormal B it is
full by construction, whatever was learned."""
