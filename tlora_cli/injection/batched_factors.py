"""The factors of all low-rank updates, built together.

Host time is what a small step costs, so nothing is done once a layer that can be done once a call.
The factors of all layers of one shape are built, masked and cast as one tensor when the denoiser is
called.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tlora_cli.formulas.masked_low_rank import Pair
from tlora_cli.formulas.products import delta_form
from tlora_cli.injection.changes import LowRankUpdate
from tlora_cli.injection.layer_groups import (
    CallFactors,
    ConvolutionGroup,
    LayerGroup,
    SharedProducts,
    UpdateAlone,
    UpdateHook,
)


class StackedFactors(NamedTuple):
    """The factors of the L layers of a stack.

    Attributes:
        down: (L, w, in), without gradient.
        up: (L, out, w), likewise.
        trained_down: (L, R, in), what the first rows of each `down` were cast from, with gradient;
            None where gradients are off.
        trained_up: (L, out, R), the same for the first columns of each `up`.
    """

    down: Tensor
    up: Tensor
    trained_down: Tensor | None
    trained_up: Tensor | None


class FactorStack:
    """All groups of one shape; their factors are built as one tensor each."""

    def __init__(self, groups: Sequence[LayerGroup]) -> None:
        self.groups = groups
        self.first = groups[0].layers[0]
        self._layers = [layer for group in groups for layer in group.layers]

    def build(self, dtype: torch.dtype, scale: float) -> StackedFactors:
        """Return the factors in a number format and at a strength; built in fp32 and then cast."""
        tensors = zip(*(layer.tensors() for layer in self._layers), strict=True)
        products = self.first.formula.combine(*(torch.stack(same) for same in tensors))
        if scale != 1.0:
            up0 = None if products.up0 is None else scale * products.up0
            products = products._replace(up=scale * products.up, up0=up0)
        with torch.no_grad():
            down, up = (factor.to(dtype) for factor in delta_form(products))
        if not torch.is_grad_enabled():
            return StackedFactors(down, up, None, None)
        return StackedFactors(down, up, products.down, products.up)

    def for_call(
        self, built: StackedFactors, mask: Tensor | None, autocast: bool
    ) -> list[CallFactors]:
        """Return what each group runs with in a call.

        Args:
            built: by `build`.
            mask: (B, w) or (1, w); None means all ones.
            autocast: whether the call runs under autocast.
        """
        down, up, trained_down, trained_up = built
        single: Tensor | None = None
        if mask is not None and len(mask) == 1:
            # One mask for all samples: masking the factor is masking its product with x.
            single, mask = mask.view(-1, 1), None
            down = down * single
        first_down, first_up = down, up
        if trained_down is not None and trained_up is not None:
            rank = trained_down.shape[1]
            first_down, first_up = down[:, :rank], up[..., :rank]
            if trained_down.requires_grad or trained_up.requires_grad:
                single = None if single is None else single[:rank]
                first_down = _route(first_down, trained_down, single)
                first_up = _route(first_up, trained_up, None)
        groups, layers = len(self.groups), len(self.groups[0].layers)
        ups, first_ups = up.unbind(), first_up.unbind()
        return [
            CallFactors(
                Pair(own, ups[n : n + layers], first, first_ups[n : n + layers]), mask, autocast
            )
            for own, first, n in zip(
                down.view(groups, -1, down.shape[2]).unbind(),
                first_down.view(groups, layers, *first_down.shape[1:]).unbind(),
                range(0, groups * layers, layers),
                strict=True,
            )
        ]


def _route(made: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
    """Return `made`, with gradients that go to `source`, of the same shape, under the mask."""
    return _Route.apply(made, source, mask)  # type: ignore[no-any-return, no-untyped-call]


class _Route(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, made: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.dtype = source.dtype
        return made.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        [mask] = ctx.saved_tensors
        gradient = gradient.to(ctx.dtype)
        return None, gradient if mask is None else gradient * mask, None


class BatchedUpdates:
    """The updates of all layers of an adapter.

    Args:
        shared_input: expression for full names; layers whose groups agree read the same tensor.
        alone: gives the update of a layer that runs outside a call of the denoiser.
    """

    def __init__(self, shared_input: str, alone: UpdateAlone) -> None:
        self._shared_input, self._alone = re.compile(shared_input), alone
        self._products = SharedProducts()
        self._groups: dict[Any, LayerGroup] = {}

    def add(self, name: str, update: LowRankUpdate) -> UpdateHook:
        """Take the update of the layer `name`, in the model's order; return the layer's hook."""
        match = self._shared_input.fullmatch(name)
        key = (match.groups(), _kind(update)) if match else name
        if key not in self._groups:
            kind = LayerGroup if update.convolution is None else ConvolutionGroup
            self._groups[key] = kind(self._products, self._alone)
        return self._groups[key].join(name, update)

    @cached_property
    def stacks(self) -> list[FactorStack]:
        """The groups by shape, once all updates are there."""
        of_a_shape: dict[Any, list[LayerGroup]] = defaultdict(list)
        for group in self._groups.values():
            of_a_shape[_kind(group.layers[0]), len(group.layers)].append(group)
        return [FactorStack(groups) for groups in of_a_shape.values()]

    def rest(self, resting: bool) -> None:
        """Let all layers answer without their updates, or with them again."""
        for group in self._groups.values():
            group.resting = resting

    def build(self, dtype: torch.dtype, scale: float) -> list[StackedFactors]:
        """Return the factors of all stacks, in a number format and at a strength."""
        return [stack.build(dtype, scale) for stack in self.stacks]

    def for_call(
        self, built: Sequence[StackedFactors], mask: Callable[[int], Tensor | None], autocast: bool
    ) -> list[list[CallFactors]]:
        """Return what all groups of all stacks run with, under the masks of a call.

        Args:
            built: by `build`.
            mask: copies -> mask (B, copies * R) of the call.
            autocast: whether the call runs under autocast.
        """
        return [
            stack.for_call(factors, mask(stack.first.copies), autocast)
            for stack, factors in zip(self.stacks, built, strict=True)
        ]

    def install(self, factors: Sequence[Sequence[CallFactors]] | None) -> None:
        """Run the layers with these factors from now on; None: with none."""
        for number, stack in enumerate(self.stacks):
            for place, group in enumerate(stack.groups):
                group.factors = None if factors is None else factors[number][place]


def _kind(update: LowRankUpdate) -> tuple[Any, ...]:
    """Return what updates must have in common for their tensors to be stacked."""
    shapes = tuple((t.shape, t.dtype, t.device, t.requires_grad) for t in update.tensors())
    return update.formula, update.convolution, shapes
