"""SVDiff: only the singular values move.

Han et al. 2023, "SVDiff: Compact Parameter Space for Diffusion Fine-Tuning".
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tlora_cli.methods.base import Reweighting

VECTOR_RATE = 1e-3
"""Learning rate of shifts of one-dimensional weights, relative to that of singular values: 1e-6
against 1e-3, as published."""


class SVDiff(Reweighting):
    """W' = U diag(relu(S + d)) V^T, d = 0 at the start; convolutions as (out, in * h * w) matrices.

    The singular vectors are the base's and are not saved.

    Args:
        weight: W, two-dimensional or a convolution's.
    """

    U: Tensor
    S: Tensor
    Vh: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        if weight.is_meta:
            rows, columns = weight.flatten(1).shape
            rank = min(rows, columns)
            u, s, vh = (torch.empty(size, device="meta") for size in
                        ((rows, rank), (rank,), (rank, columns)))  # fmt: skip
        else:
            u, s, vh = torch.linalg.svd(weight.detach().flatten(1).float(), full_matrices=False)
        for name, tensor in (("U", u), ("S", s), ("Vh", vh)):
            self.register_buffer(name, tensor, persistent=False)
        self.shift = nn.Parameter(torch.zeros_like(s))

    def weights(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weight with shifted singular values.

        Built as W + U diag(relu(S + d) - S) V^T, so that rounding leaves the base alone at d = 0.
        """
        moved = torch.relu(self.S + self.shift) - self.S
        change = (self.U * moved) @ self.Vh
        return {"weight": own["weight"] + change.view_as(own["weight"])}


class VectorShift(Reweighting):
    """w' = w + d for the one-dimensional weight of a normalization layer."""

    rate = VECTOR_RATE

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros_like(weight, dtype=torch.float32))

    def weights(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the shifted weight."""
        return {"weight": own["weight"] + self.shift}
