"""Layers that read one tensor: their forward hooks, and the product that they share.

Host time is what a small step costs, so layers of one input (queries, keys and values) share one
product with it: the first to run makes it for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlora_cli.formulas.masked_low_rank import (
    Pair,
    add_low_rank,
    add_up,
    masked_low_rank,
    project_down,
)
from tlora_cli.injection.changes import LowRankUpdate

UpdateAlone = Callable[[LowRankUpdate, Tensor], Tensor]
"""(layer's update, input) -> what it adds, for a layer that runs outside a call of the denoiser."""


@dataclass(slots=True)
class CallFactors:
    """The factors that the layers of a group run with in a call.

    Attributes:
        pair: their factors, in the number format that they compute in. A mask that all samples
            share is in them.
        mask: (B, w), if the samples have masks of their own.
        autocast: whether the call runs under autocast.
    """

    pair: Pair
    mask: Tensor | None
    autocast: bool

    def cast(self, dtype: torch.dtype) -> CallFactors:
        """Return the same in another number format."""
        mask = None if self.mask is None else self.mask.to(dtype)
        return CallFactors(self.pair.cast(dtype), mask, self.autocast)


class LayerGroup:
    """Layers that read one tensor, all of one shape and formula."""

    def __init__(self, shared: SharedProducts, alone: UpdateAlone) -> None:
        self.names: list[str] = []
        self.layers: list[LowRankUpdate] = []
        self.shared = shared
        self.alone = alone
        self.factors: CallFactors | None = None
        """Their share of the denoiser's present call; None before it."""
        self.folded: Sequence[Tensor] | None = None
        """Weights with the updates in them, if the present call runs with such; see
        `folded_weights.py`."""
        self.resting = False
        """Whether they answer without their updates for now."""
        self.alike = False
        """Whether there are several, and they have been given the same tensor so far."""

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the present call's factors: a copy of the model begins without a call."""
        return {**self.__dict__, "factors": None, "folded": None}

    def join(self, name: str, update: LowRankUpdate) -> UpdateHook:
        """Take a layer's update; return the layer's forward hook."""
        self.names.append(name)
        self.layers.append(update)
        self.alike = len(self.layers) > 1
        return UpdateHook(self, len(self.layers) - 1)

    def add(self, index: int, x: Tensor, output: Tensor) -> Tensor:
        """Return a layer's output with its update added.

        Args:
            index: which of the layers.
            x: (B, ..., in), its input.
            output: (B, ..., out), what it gives; not to be used afterwards.
        """
        factors = self.factors
        if factors is None:
            return output + self.alone(self.layers[index], x)
        if output.dtype is not factors.pair.down.dtype:  # the call's format was guessed wrong
            factors = factors.cast(output.dtype)
        if torch.compiler.is_compiling():  # the compiler does better with the plain formula
            down, up = factors.pair.differentiable(index)
            return output + self._formula(index, x.to(output.dtype), down, up, factors.mask)
        if factors.autocast:
            with torch.autocast(x.device.type, enabled=False):
                return self._add(factors, index, x, output)
        return self._add(factors, index, x, output)

    def _formula(
        self, index: int, x: Tensor, down: Tensor, up: Tensor, mask: Tensor | None
    ) -> Tensor:
        return masked_low_rank(x, down, up, mask)

    def _add(self, factors: CallFactors, index: int, x: Tensor, output: Tensor) -> Tensor:
        pair, mask = factors.pair, factors.mask
        own = x if x.dtype is output.dtype else x.to(output.dtype)
        if self.alike:
            if index == 0:
                first, *others = project_down(own, pair, mask)
                self.shared.leave(self, x, others)
                return add_up(output, first, pair, index)
            hidden = self.shared.take(self, index, x)
            if hidden is not None:
                return add_up(output, hidden, pair, index)
            self.alike = False  # not in this model, after all
        if len(self.layers) > 1:
            pair = pair.of(index)
        return add_low_rank(output, own, pair, mask)


class ConvolutionGroup(LayerGroup):
    """Convolutions; their updates run by the plain formula, and autograd differentiates it."""

    def _formula(
        self, index: int, x: Tensor, down: Tensor, up: Tensor, mask: Tensor | None
    ) -> Tensor:
        return self.layers[index].added(x, down, up, mask)

    def _add(self, factors: CallFactors, index: int, x: Tensor, output: Tensor) -> Tensor:
        pair, own = factors.pair.of(index), x if x.dtype is output.dtype else x.to(output.dtype)
        down, [up] = pair.down, pair.ups
        if torch.is_grad_enabled():
            down, up = pair.differentiable(0)
        return output + self._formula(index, own, down, up, factors.mask)


def autocast_dtype(device: str) -> torch.dtype | None:
    """Return what autocast computes linear layers in on a kind of device; None where it is off."""
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


class SharedProducts:
    """Place where a group's first layer leaves the products of the others, run right after it."""

    def __init__(self) -> None:
        self._group: LayerGroup | None = None
        self._state: tuple[Any, ...] = ()
        self._products: dict[int, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        return SharedProducts().__dict__

    def leave(self, group: LayerGroup, x: Tensor, products: Sequence[Tensor]) -> None:
        """Leave the products of layers 1, 2, ... with x."""
        self._group, self._state = group, (x, _state(x))
        self._products = dict(enumerate(products, 1))

    def take(self, group: LayerGroup, index: int, x: Tensor) -> Tensor | None:
        """Return a layer's product if it was made with this very x, unchanged since."""
        if self._group is not group or self._state[0] is not x or self._state[1] != _state(x):
            return None
        product = self._products.pop(index, None)
        if not self._products:
            self._group, self._state = None, ()
        return product


def _state(x: Tensor) -> tuple[int, bool]:
    return 0 if x.is_inference() else x._version, torch.is_grad_enabled()


class UpdateHook:
    """A layer's forward hook: adds its update.

    An object of its own instead of a partial: what the compiler sees of it is the same in every
    block of a model, so that one compilation serves them all.
    """

    def __init__(self, group: LayerGroup, index: int) -> None:
        self.group, self.index = group, index

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Return the output with the update added."""
        if self.group.folded is not None or self.group.resting:
            return output
        return self.group.add(self.index, inputs[0], output)
