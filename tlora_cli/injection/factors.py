"""The updates of all layers: factors built together, products shared by layers of one input.

Host time is what a small step costs, so nothing is done once a layer that can be done once a call.
The factors of all layers of one shape are built, masked and cast as one tensor when the denoiser is
called; layers that read the same tensor (queries, keys and values) share one product with it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tlora_cli.formulas.masked_low_rank import (
    Pair,
    add_low_rank,
    add_up,
    masked_low_rank,
    project_down,
)
from tlora_cli.methods import Parametrization, delta_form

Alone = Callable[[Parametrization, Tensor], Tensor]
"""(layer, input) -> update, for a layer that runs outside a call of the denoiser."""


@dataclass(slots=True)
class Share:
    """The factors that the layers of a site run with in a call.

    Attributes:
        pair: their factors, in the number format that they compute in. A mask that all samples
            share is in them.
        mask: (B, w), if the samples have masks of their own.
        autocast: whether the call runs under autocast.
    """

    pair: Pair
    mask: Tensor | None
    autocast: bool

    def cast(self, dtype: torch.dtype) -> Share:
        """Return the same in another number format."""
        mask = None if self.mask is None else self.mask.to(dtype)
        return Share(self.pair.cast(dtype), mask, self.autocast)


class Site:
    """Layers that read one tensor, all of one shape and parametrization."""

    def __init__(
        self, names: Sequence[str], layers: Sequence[Parametrization], desk: Desk, alone: Alone
    ) -> None:
        self.names = names
        self.layers = layers
        self.desk = desk
        self.alone = alone
        self.share: Share | None = None
        """The share of the denoiser's present call; None before it."""
        self.folded: Sequence[Tensor] | None = None
        """Weights with the updates in them, if the present call runs with such; `folding.py`."""
        self.alike = len(layers) > 1
        """Whether the layers have been given the same tensor so far."""

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the present call's share: a copy of the model begins without a call."""
        return {**self.__dict__, "share": None, "folded": None}

    def add(self, index: int, x: Tensor, output: Tensor) -> Tensor:
        """Return a layer's output with its update added.

        Args:
            index: which of the layers.
            x: (B, ..., in), its input.
            output: (B, ..., out), what it gives; not to be used afterwards.
        """
        share = self.share
        if share is None:
            return output + self.alone(self.layers[index], x)
        if output.dtype is not share.pair.down.dtype:  # the call's format was guessed wrong
            share = share.cast(output.dtype)
        if torch.compiler.is_compiling():  # the compiler does better with the plain formula
            down, up = share.pair.differentiable(index)
            return output + masked_low_rank(x.to(output.dtype), down, up, share.mask)
        if share.autocast:
            with torch.autocast(x.device.type, enabled=False):
                return self._add(share, index, x, output)
        return self._add(share, index, x, output)

    def _add(self, share: Share, index: int, x: Tensor, output: Tensor) -> Tensor:
        pair, mask = share.pair, share.mask
        own = x if x.dtype is output.dtype else x.to(output.dtype)
        if self.alike:
            if index == 0:
                first, *others = project_down(own, pair, mask)
                self.desk.leave(self, x, others)
                return add_up(output, first, pair, index)
            hidden = self.desk.take(self, index, x)
            if hidden is not None:
                return add_up(output, hidden, pair, index)
            self.alike = False  # not in this model, after all
        if len(self.layers) > 1:
            pair = pair.of(index)
        return add_low_rank(output, own, pair, mask)


def autocast_dtype(device: str) -> torch.dtype | None:
    """Return what autocast computes linear layers in on a kind of device; None where it is off."""
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


class Desk:
    """Place where a site's first layer leaves the products of the others, which run right after."""

    def __init__(self) -> None:
        self._site: Site | None = None
        self._state: tuple[Any, ...] = ()
        self._products: dict[int, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        return Desk().__dict__

    def leave(self, site: Site, x: Tensor, products: Sequence[Tensor]) -> None:
        """Leave the products of layers 1, 2, ... with x."""
        self._site, self._state = site, (x, _state(x))
        self._products = dict(enumerate(products, 1))

    def take(self, site: Site, index: int, x: Tensor) -> Tensor | None:
        """Return a layer's product if it was made with this very x, unchanged since."""
        if self._site is not site or self._state[0] is not x or self._state[1] != _state(x):
            return None
        product = self._products.pop(index, None)
        if not self._products:
            self._site, self._state = None, ()
        return product


def _state(x: Tensor) -> tuple[int, bool]:
    return 0 if x.is_inference() else x._version, torch.is_grad_enabled()


class Built(NamedTuple):
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


class Stack:
    """All sites of one shape; their factors are built as one tensor each."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self.sites = sites
        self.first = sites[0].layers[0]
        self._layers = [layer for site in sites for layer in site.layers]

    def build(self, dtype: torch.dtype, scale: float) -> Built:
        """Return the factors in a number format and at a strength; built in fp32 and then cast."""
        products = self.first.combine(
            *(
                torch.stack([getattr(layer, name) for layer in self._layers])
                for name in self.first.parts
            )
        )
        if scale != 1.0:
            up0 = None if products.up0 is None else scale * products.up0
            products = products._replace(up=scale * products.up, up0=up0)
        with torch.no_grad():
            down, up = (factor.to(dtype) for factor in delta_form(products))
        if not torch.is_grad_enabled():
            return Built(down, up, None, None)
        return Built(down, up, products.down, products.up)

    def share(self, built: Built, mask: Tensor | None, autocast: bool) -> list[Share]:
        """Return each site's share of the factors.

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
        sites, layers = len(self.sites), len(self.sites[0].layers)
        ups, first_ups = up.unbind(), first_up.unbind()
        return [
            Share(Pair(own, ups[n : n + layers], first, first_ups[n : n + layers]), mask, autocast)
            for own, first, n in zip(
                down.view(sites, -1, down.shape[2]).unbind(),
                first_down.view(sites, layers, *first_down.shape[1:]).unbind(),
                range(0, sites * layers, layers),
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


class Updates:
    """The updates of all layers of an adapter.

    Args:
        layers: full name -> parametrization, in the model's order.
        shared_input: expression for full names; layers whose groups agree read the same tensor.
        alone: gives the update of a layer that runs outside a call of the denoiser.
    """

    def __init__(
        self, layers: Mapping[str, Parametrization], shared_input: str, alone: Alone
    ) -> None:
        pattern, desk = re.compile(shared_input), Desk()
        together: dict[Any, list[str]] = defaultdict(list)
        for name, layer in layers.items():
            match = pattern.fullmatch(name)
            together[(match.groups(), _kind(layer)) if match else name].append(name)
        self.hooks: dict[str, Hook] = {}
        """Full name -> forward hook of the layer."""
        of_a_shape: dict[Any, list[Site]] = defaultdict(list)
        for names in together.values():
            site = Site(names, [layers[name] for name in names], desk, alone)
            of_a_shape[_kind(site.layers[0]), len(names)].append(site)
            for index, name in enumerate(names):
                self.hooks[name] = Hook(site, index)
        self.stacks = [Stack(sites) for sites in of_a_shape.values()]

    def build(self, dtype: torch.dtype, scale: float) -> list[Built]:
        """Return the factors of all stacks, in a number format and at a strength."""
        return [stack.build(dtype, scale) for stack in self.stacks]

    def share(
        self, built: Sequence[Built], mask: Callable[[int], Tensor | None], autocast: bool
    ) -> list[list[Share]]:
        """Return the shares of all sites of all stacks, under the masks of a call.

        Args:
            built: by `build`.
            mask: copies -> mask (B, copies * R) of the call.
            autocast: whether the call runs under autocast.
        """
        return [
            stack.share(factors, mask(stack.first.copies), autocast)
            for stack, factors in zip(self.stacks, built, strict=True)
        ]

    def install(self, shared: Sequence[Sequence[Share]] | None) -> None:
        """Run the layers with these shares from now on; None: with none."""
        for number, stack in enumerate(self.stacks):
            for place, site in enumerate(stack.sites):
                site.share = None if shared is None else shared[number][place]


def _kind(layer: Parametrization) -> tuple[Any, ...]:
    """Return what layers must have in common for their tensors to be stacked."""
    tensors = [getattr(layer, name) for name in layer.parts]
    shapes = tuple((t.shape, t.dtype, t.device, t.requires_grad) for t in tensors)
    return type(layer), layer.copies, shapes


class Hook:
    """A layer's forward hook: adds its update.

    An object of its own instead of a partial: what the compiler sees of it is the same in every
    block of a model, so that one compilation serves them all.
    """

    def __init__(self, site: Site, index: int) -> None:
        self.site, self.index = site, index

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Return the output with the update added."""
        if self.site.folded is not None:
            return output
        return self.site.add(self.index, inputs[0], output)
