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
from typing import Any

import torch
from torch import Tensor, nn

from tlora_cli.adapters import Parametrization
from tlora_cli.kernels import add_low_rank, add_up, masked_low_rank, project_down

Alone = Callable[[Parametrization, Tensor], Tensor]
"""(layer, input) -> update, for a layer that runs outside a call of the denoiser."""


@dataclass(slots=True)
class Factors:
    """What the layers of one input are run with, in the number format they compute in.

    Attributes:
        down: (layers * w, in); a mask that all samples share is in it.
        ups: (out, w) of each layer, without gradient.
        trained: (out, R) of each layer, the first columns of `ups`, with gradient.
        mask: (B, w), if the samples have masks of their own.
        autocast: whether the call runs under autocast.
    """

    down: Tensor
    ups: Sequence[Tensor]
    trained: Sequence[Tensor]
    mask: Tensor | None
    autocast: bool

    def cast(self, dtype: torch.dtype) -> Factors:
        """Return the factors in another number format."""
        return Factors(
            self.down.to(dtype),
            [up.to(dtype) for up in self.ups],
            [trained.to(dtype) for trained in self.trained],
            None if self.mask is None else self.mask.to(dtype),
            self.autocast,
        )


class Site:
    """Layers that read one tensor, all of one shape and parametrization."""

    def __init__(self, layers: Sequence[Parametrization], desk: Desk, alone: Alone) -> None:
        self.layers = layers
        self.desk = desk
        self.alone = alone
        self.factors: Factors | None = None
        """Of the denoiser's present call; None before it."""
        self.alike = len(layers) > 1
        """Whether the layers have been given the same tensor so far."""

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the present call's factors: a copy of the model begins without a call."""
        return {**self.__dict__, "factors": None}

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
        if torch.compiler.is_compiling():  # the compiler does better with the plain formula
            return output + self._plain(factors, index, x.to(output.dtype))
        if factors.autocast:
            with torch.autocast(x.device.type, enabled=False):
                return self._add(factors, index, x, output)
        return self._add(factors, index, x, output)

    def _add(self, factors: Factors, index: int, x: Tensor, output: Tensor) -> Tensor:
        if output.dtype is not factors.down.dtype:  # the call's number format was guessed wrong
            factors = factors.cast(output.dtype)
        up, trained, parts = factors.ups[index], factors.trained[index], len(self.layers)
        down, mask = factors.down, factors.mask
        if self.alike:
            if index == 0:
                whole = None if mask is None else mask.repeat(1, parts)
                own = x if x.dtype is down.dtype else x.to(down.dtype)
                first, *others = project_down(own, down, parts, whole)
                self.desk.leave(self, x, others)
                return add_up(output, first, up, trained)
            hidden = self.desk.take(self, index, x)
            if hidden is not None:
                return add_up(output, hidden, up, trained)
            self.alike = False  # not in this model, after all
        if parts > 1:
            width = len(down) // parts
            down = down[index * width : (index + 1) * width]
        own = x if x.dtype is down.dtype else x.to(down.dtype)
        return add_low_rank(output, own, down, up, trained, mask)

    def _plain(self, factors: Factors, index: int, x: Tensor) -> Tensor:
        """Return the update by the plain formula."""
        if x.dtype != factors.down.dtype:
            factors = factors.cast(x.dtype)
        width = len(factors.down) // len(self.layers)
        down = factors.down[index * width : (index + 1) * width]
        up, trained = factors.ups[index], factors.trained[index]
        if up.shape != trained.shape:
            trained = torch.cat([trained, up[:, trained.shape[1] :]], dim=1)
        return masked_low_rank(x, down, trained, factors.mask)


def autocast_dtype(device: str) -> torch.dtype | None:
    """Return what autocast computes linear layers in on a kind of device; None where it is off."""
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


class Desk:
    """Where a site's first layer leaves the products of the others, who run right after it."""

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


Built = tuple[Tensor, Tensor, Tensor]
"""What `Stack.build` returns."""


class Stack:
    """All sites of one shape; their factors are built as one tensor each."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self.sites = sites
        self.first = sites[0].layers[0]
        self._layers = [layer for site in sites for layer in site.layers]

    def build(self, dtype: torch.dtype, scale: float) -> Built:
        """Return down (sites, layers * w, in), up (L, out, w) and its trained columns (L, out, R).

        Built in fp32 and then cast, see `Ortho.combine`.
        """
        tensors = (
            torch.stack([getattr(layer, name) for layer in self._layers])
            for name in self.first.parts
        )
        down, trained, fixed = self.first.combine(*tensors)
        if scale != 1.0:
            trained, fixed = scale * trained, None if fixed is None else scale * fixed
        down, trained = down.to(dtype), trained.to(dtype)
        up = trained.detach()
        if fixed is not None:
            up, trained = _Joined.apply(trained, fixed.to(dtype))  # type: ignore[no-untyped-call]
        return down.view(len(self.sites), -1, down.shape[-1]), up, trained

    def share(self, built: Built, mask: Tensor | None, autocast: bool) -> list[Factors]:
        """Return each site's share of what `build` gave.

        Args:
            built: by `build`.
            mask: (B, w) or (1, w); None means all ones.
            autocast: whether the call runs under autocast.
        """
        down, up, trained = built
        parts = len(self.sites[0].layers)
        if mask is not None and len(mask) == 1:
            # One mask for all samples: masking the factor is masking its product with x.
            down = down * mask.repeat(1, parts).unsqueeze(-1)
            mask = None
        ups, columns = up.unbind(), trained.unbind()
        return [
            Factors(own, ups[first : first + parts], columns[first : first + parts], mask, autocast)
            for own, first in zip(down.unbind(), range(0, len(ups), parts), strict=True)
        ]


class _Joined(torch.autograd.Function):
    """[trained, fixed] side by side, without gradient, and a view of the first, with it."""

    @staticmethod
    def forward(ctx: Any, trained: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        whole = torch.cat([trained, fixed], dim=-1)
        ctx.mark_non_differentiable(whole)
        return whole, whole[..., : trained.shape[-1]]

    @staticmethod
    def backward(ctx: Any, _: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


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
            site = Site([layers[name] for name in names], desk, alone)
            of_a_shape[_kind(site.layers[0]), len(names)].append(site)
            for index, name in enumerate(names):
                self.hooks[name] = Hook(site, index)
        self.stacks = [Stack(sites) for sites in of_a_shape.values()]

    def build(self, dtype: torch.dtype, scale: float) -> list[Built]:
        """Return the factors of all stacks, in a number format and at a strength."""
        return [stack.build(dtype, scale) for stack in self.stacks]

    def share(
        self, built: Sequence[Built], mask: Callable[[int], Tensor | None], autocast: bool
    ) -> list[list[Factors]]:
        """Return the factors of all sites of all stacks, under the masks of a call.

        Args:
            built: by `build`.
            mask: copies -> mask (B, copies * R) of the call.
            autocast: whether the call runs under autocast.
        """
        return [
            stack.share(factors, mask(stack.first.copies), autocast)
            for stack, factors in zip(self.stacks, built, strict=True)
        ]

    def install(self, shared: Sequence[Sequence[Factors]] | None) -> None:
        """Run the layers with these factors from now on; None: with none."""
        for number, stack in enumerate(self.stacks):
            for place, site in enumerate(stack.sites):
                site.factors = None if shared is None else shared[number][place]


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
        return self.site.add(self.index, inputs[0], output)
