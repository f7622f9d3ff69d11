"""What a method changes in one layer: it adds an update, or it runs the layer on other weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn


class Parametrization(nn.Module, ABC):
    """The update of one linear layer, y = W x + up (mask * (down x)).

    Attributes:
        rank: R, the number of components a schedule can switch.
        copies: how many blocks of R rows `down` has; the mask is repeated that many times.
        rate: learning rate of its parameters, relative to the recipe's.
    """

    copies: int = 1
    rate: float = 1.0

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    parts: ClassVar[tuple[str, ...]]
    """Names of the tensors that `combine` takes."""

    @staticmethod
    @abstractmethod
    def combine(*parts: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return down, the first R columns of up, and its other columns, which aren't trained.

        The formula of the method, and its only copy. The tensors may all have more dimensions in
        front, for many layers of one shape at once.
        """

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return down (copies * R, in) and up (out, copies * R), fp32 and differentiable."""
        down, trained, fixed = self.combine(*(getattr(self, name) for name in self.parts))
        return down, trained if fixed is None else torch.cat([trained, fixed], dim=-1)


class Reweighting(nn.Module, ABC):
    """Other weights for one module while it runs: y = W' x, W' a function of W.

    For methods whose change is not a small product of factors. They have no rank axis, so no
    schedule masks them.

    Attributes:
        rate: learning rate of its parameters, relative to the recipe's.
    """

    rate: float = 1.0

    @abstractmethod
    def weights(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters to run with, by name, differentiable.

        Args:
            own: the module's own parameters, fp32; equal to the result before training.
        """
