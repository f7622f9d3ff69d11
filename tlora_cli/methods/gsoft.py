"""GSOFT: rotations that mix all features, from two shuffled block-diagonal ones.

Gorbunov et al. 2024, "Group and Shuffle: Efficient Structured Orthogonal Parametrization".
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tlora_cli.methods.base import Reweighting
from tlora_cli.methods.rotations import (
    cayley,
    shuffle_rows,
    skew_part,
    turn_rows,
    unshuffle_rows,
)


class Rotation(nn.Module):
    """Q = P^T L P R, orthogonal (n, n); L and R have b blocks, Cayley transforms, I at the start.

    As published, each block holds k^2 numbers of which only the skew part counts.
    """

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        self.blocks, size = blocks, features // blocks
        self.L = nn.Parameter(torch.zeros(blocks, size, size))
        self.R = nn.Parameter(torch.zeros(blocks, size, size))

    def forward(self, matrix: Tensor) -> Tensor:
        """Return Q @ matrix, for a matrix (n, m)."""
        first = turn_rows(cayley(skew_part(self.R)), matrix)
        second = turn_rows(cayley(skew_part(self.L)), shuffle_rows(first, self.blocks))
        return unshuffle_rows(second, self.blocks)

    def transposed(self, matrix: Tensor) -> Tensor:
        """Return Q^T @ matrix."""
        first = turn_rows(cayley(skew_part(self.L)).mT, shuffle_rows(matrix, self.blocks))
        return turn_rows(cayley(skew_part(self.R)).mT, unshuffle_rows(first, self.blocks))


class GSOFT(Reweighting):
    """W' = diag(s) W Q; s = 1 and Q = I at the start. Q alone keeps the singular values.

    Args:
        out_features: rows of W.
        in_features: columns of W.
        blocks: b; it divides the columns, for the double form the rows too.
        double: W' = diag(s) Q_U W Q_V.
    """

    def __init__(self, out_features: int, in_features: int, blocks: int, double: bool) -> None:
        super().__init__()
        self.V = Rotation(in_features, blocks)
        self.U = Rotation(out_features, blocks) if double else None
        self.scale = nn.Parameter(torch.ones(out_features))

    def weights(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the rotated and scaled weight."""
        turned = self.V.transposed(own["weight"].T).T
        if self.U is not None:
            turned = self.U(turned)
        return {"weight": self.scale[:, None] * turned}
