"""What a parametrization is: trainable tensors that give one pair of factors."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Parametrization(nn.Module, ABC):
    """The update of one linear layer, y = W x + up (mask * (down x)).

    Attributes:
        rank: R, the number of components a schedule can switch.
        copies: how many blocks of R rows `down` has; the mask is repeated that many times.
    """

    copies: int = 1

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    @abstractmethod
    def factors(self) -> tuple[Tensor, Tensor]:
        """Return down (copies * R, in) and up (out, copies * R), fp32 and differentiable."""
