"""OFT: a block-diagonal rotation of the weights.

Qiu et al. 2023, "Controlling Text-to-Image Diffusion by Orthogonal Finetuning".
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tlora_cli.methods.base import Reweighting
from tlora_cli.methods.rotations import cayley, cayley_neumann, skew_from_entries, turn_rows


class OFT(Reweighting):
    """W' = R W with R = blockdiag(R_1 ... R_b) on the output side, as the paper's authors ran it.

    R_i = (I + S_i)(I - S_i)^-1, S_i skew-symmetric and zero at the start; the singular values of W
    do not change.

    Args:
        features: rows of W.
        blocks: b; it divides the rows.
    """

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        self.size = features // blocks
        self.entries = nn.Parameter(torch.zeros(blocks, self.size * (self.size - 1) // 2))

    def weights(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the rotated weight."""
        rotations = cayley(skew_from_entries(self.entries, self.size))
        return {"weight": turn_rows(rotations, own["weight"])}


class OFTv2(OFT):
    """W' = W R^T on the input side, R by a Neumann series: the form of today's PEFT.

    Args:
        features: columns of W.
        blocks: b; it divides the columns.
    """

    def weights(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the rotated weight."""
        rotations = cayley_neumann(skew_from_entries(self.entries, self.size))
        return {"weight": turn_rows(rotations, own["weight"].T).T}
