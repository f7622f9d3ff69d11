"""W + B A: LoRA (Hu et al. 2021), as the T-LoRA authors start it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tlora_cli.methods.base import Parametrization, Products


class LowRank(Parametrization):
    """Trains A (R, in) and B (out, R)."""

    parts = ("A", "B")

    def __init__(self, down: Tensor, up: Tensor) -> None:
        super().__init__(rank=down.shape[0])
        self.A = nn.Parameter(down)
        self.B = nn.Parameter(up)

    @classmethod
    def start(cls, layer: nn.Linear, rank: int, generator: torch.Generator) -> LowRank:
        """Start at the identity: A ~ N(0, std 1/R), B = 0, no alpha / rank scale.

        Args:
            layer: the linear layer; only its shape is used.
            rank: R.
            generator: CPU generator, so that the start does not depend on the device.
        """
        down = torch.empty(rank, layer.in_features).normal_(std=1 / rank, generator=generator)
        return cls(down, torch.zeros(layer.out_features, rank))

    @staticmethod
    def combine(*parts: Tensor) -> Products:
        """Return A and B themselves."""
        down, up = parts
        return Products(down, up)
