"""The change of one layer: a method adds an update, or it runs the layer on other weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class Products(NamedTuple):
    """An update up down - up0 down0; up0 and down0 are constants, or None where there are none.

    down and down0 are (..., R, in), up and up0 (..., out, R).
    """

    down: Tensor
    up: Tensor
    down0: Tensor | None = None
    up0: Tensor | None = None


def delta_form(products: Products) -> tuple[Tensor, Tensor]:
    """Return one pair of factors, of width R or 2R, whose product is the update.

    down' = [down ; down - down0], up' = [up - up0 , up0], because
    (up - up0) down + up0 (down - down0) = up down - up0 down0.
    It is exactly zero where up = up0 and down = down0. Subtracting the two products instead loses
    the small update to rounding in bf16.
    """
    down, up, down0, up0 = products
    if down0 is None or up0 is None:
        return down, up
    return torch.cat([down, down - down0], dim=-2), torch.cat([up - up0, up0], dim=-1)


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
    def combine(*parts: Tensor) -> Products:
        """Return the update as products: the formula of the method, and its only copy.

        The tensors may all have more dimensions in front, for many layers of one shape at once.
        """

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return down (copies * R, in) and up (out, copies * R), fp32 and differentiable."""
        return delta_form(self.combine(*(getattr(self, name) for name in self.parts)))


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
