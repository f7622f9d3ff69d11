"""Fold the updates into copies of the weights, once a call: for sampling in fp32 on a CPU.

W' = W + scale * B diag(mask) A, for all layers of one shape in one operation. The layer then runs
as the bare one does. Not in half precision, where a small update would be rounded away, and not on
a GPU, where it was not measured; there the masked pair stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlora_cli.updates import Built, Site, Stack, Updates


class Folding:
    """Layers whose weights are replaced for the length of a call.

    Args:
        modules: full name -> the layer itself, of all layers of `updates`.
        updates: of an adapter.
    """

    def __init__(self, modules: Mapping[str, nn.Module], updates: Updates) -> None:
        self._stacks = updates.stacks
        self._layers = [modules[name] for stack in self._stacks for name in _names(stack)]
        self._weights = [
            torch.stack([modules[name].get_parameter("weight").detach() for name in _names(stack)])
            for stack in self._stacks
        ]
        self._folded = [torch.empty_like(whole) for whole in self._weights]
        self._last: tuple[Sequence[Built], list[list[slice]]] | None = None
        """What is in `_folded`."""
        for stack in self._stacks:
            for site in stack.sites:
                for index, name in enumerate(site.names):
                    module = modules[name]
                    # An attribute of the layer itself goes before its class's method.
                    module.forward = _FoldedForward(module, site, index, module.forward)

    def fold(self, built: Sequence[Built], mask: Callable[[int], Tensor | None]) -> bool:
        """Fold the factors of a call; say no if its samples have different masks.

        Args:
            built: by `Updates.build`.
            mask: copies -> mask (B, copies * R) of the call.
        """
        masks = [mask(stack.first.copies) for stack in self._stacks]
        if any(own is not None and not bool((own == own[:1]).all()) for own in masks):
            self.unfold()
            return False
        kept = [_runs(own, part.down.shape[1]) for own, part in zip(masks, built, strict=True)]
        if self._last is None or self._last[0] is not built or self._last[1] != kept:
            self._last = None
            for part, runs, whole, folded in zip(
                built, kept, self._weights, self._folded, strict=True
            ):
                folded.copy_(whole)
                for run in runs:
                    folded.baddbmm_(part.up[..., run], part.down[:, run])
            self._last = built, kept
        for stack, folded in zip(self._stacks, self._folded, strict=True):
            parts, start = folded.unbind(), 0
            for site in stack.sites:
                site.folded = parts[start : start + len(site.names)]
                start += len(site.names)
        return True

    def unfold(self) -> None:
        """Let the layers run with their own weights and their updates beside."""
        for stack in self._stacks:
            for site in stack.sites:
                site.folded = None

    def remove(self) -> None:
        """Give the layers back their own methods."""
        self.unfold()
        for layer in self._layers:
            del layer.forward


def can_fold(modules: Mapping[str, nn.Module], updates: Updates) -> bool:
    """Say whether all layers are ordinary linear ones in fp32 on a CPU, and there are any."""
    layers = [modules[name] for stack in updates.stacks for name in _names(stack)]
    return bool(layers) and all(
        type(layer) is nn.Linear
        and "forward" not in vars(layer)
        and layer.weight.dtype is torch.float32
        and layer.weight.device.type == "cpu"
        for layer in layers
    )


def _names(stack: Stack) -> list[str]:
    return [name for site in stack.sites for name in site.names]


def _runs(mask: Tensor | None, width: int) -> list[slice]:
    """Return where a mask (B, width) of equal rows of ones and zeros is one, as runs."""
    if mask is None:
        return [slice(0, width)]
    bits = [0.0, *mask[0].tolist(), 0.0]
    edges = [place for place in range(width + 1) if bits[place] != bits[place + 1]]
    return [slice(*pair) for pair in zip(edges[::2], edges[1::2], strict=True)]


class _FoldedForward:
    """A linear layer with the weights of the present call."""

    def __init__(
        self, module: nn.Module, site: Site, index: int, own: Callable[[Tensor], Tensor]
    ) -> None:
        self.bias, self.site, self.index, self.own = module.bias, site, index, own

    def __call__(self, x: Tensor) -> Tensor:
        folded = self.site.folded
        if folded is None:
            return self.own(x)
        return F.linear(x, folded[self.index], self.bias)  # type: ignore[arg-type]
