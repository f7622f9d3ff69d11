"""Fold the updates into copies of the weights, once a call: in fp32 on a CPU.

W' = W + scale * B diag(mask) A, for all layers of one shape in one operation; the layer then runs
as the bare one does. In training, the gradients of A and B are products with that of W', again for
all layers at once. Not in half precision, where a small update would be rounded away, and not on
a GPU, where it was not measured; there the masked pair stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlora_cli.foundation.offloading import waits
from tlora_cli.injection.batched_factors import BatchedUpdates, FactorStack, StackedFactors
from tlora_cli.injection.layer_groups import LayerGroup

SMALL = 1 << 17
"""Largest layer, in numbers, that is folded in training: the gradient of the whole W' costs as much
as the forward pass of the layer, and only where layers are this small that is less than the pair's
many small operations take. Measured on toy-sdxl."""


class Folding:
    """Weights of an adapter's layers with the updates in them; a context manager.

    Inside the context, the layers run with what `fold` made last, if it made something.

    Args:
        modules: full name -> the layer itself, of all layers of `updates`.
        updates: of an adapter.
    """

    def __init__(self, modules: Mapping[str, nn.Module], updates: BatchedUpdates) -> None:
        self._stacks = updates.stacks
        self._weights = [
            torch.stack([_matrix(modules[name]).detach() for name in _names(stack)])
            for stack in self._stacks
        ]
        self._forwards = [
            (modules[name], _FoldedForward(modules[name], group, index))
            for stack in self._stacks
            for group in stack.groups
            for index, name in enumerate(group.names)
        ]
        self._last: tuple[Sequence[StackedFactors], list[list[slice]]] | None = None
        """The key of what is in `_folded`."""
        self._folded: list[Tensor] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the weights that are kept to fold into."""
        return sum(whole.nbytes for whole in self._weights)

    def __enter__(self) -> Self:
        """Have the layers ask for their weights."""
        for module, forward in self._forwards:
            # An attribute of the layer itself goes before its class's method.
            module.forward = forward
        return self

    def __exit__(self, *_: object) -> None:
        """Give the layers back their own methods."""
        self.unfold()
        for module, _forward in self._forwards:
            del module.forward

    def fold(self, built: Sequence[StackedFactors], mask: Callable[[int], Tensor | None]) -> bool:
        """Fold the factors of a call; say no if its samples have different masks.

        Args:
            built: by `BatchedUpdates.build`.
            mask: copies -> mask (B, copies * R) of the call.
        """
        masks = [mask(stack.first.copies) for stack in self._stacks]
        if any(own is not None and not _alike(own) for own in masks):
            self.unfold()
            return False
        kept = [_runs(own, part.down.shape[1]) for own, part in zip(masks, built, strict=True)]
        if self._last is None or self._last[0] is not built or self._last[1] != kept:
            self._last = None
            self._fold(built, kept)
            if built and built[0].trained_up is None:
                self._last = built, kept
        for stack, folded in zip(self._stacks, self._folded, strict=True):
            parts, start = folded.unbind(), 0
            for group in stack.groups:
                group.folded = parts[start : start + len(group.names)]
                start += len(group.names)
        return True

    def _fold(self, built: Sequence[StackedFactors], kept: Sequence[Sequence[slice]]) -> None:
        trained = [part.trained_up is not None for part in built]
        if not self._folded or any(trained):  # a graph may still hold the former ones
            self._folded = [torch.empty_like(whole) for whole in self._weights]
        for number, (part, runs) in enumerate(zip(built, kept, strict=True)):
            folded = self._folded[number]
            with torch.no_grad():
                folded.copy_(self._weights[number])
                for run in runs:
                    folded.baddbmm_(part.up[..., run], part.down[:, run])
            if part.trained_down is not None and part.trained_up is not None:
                self._folded[number] = _Folded.apply(  # type: ignore[no-untyped-call]
                    folded, part.trained_down, part.trained_up, runs
                )

    def unfold(self) -> None:
        """Let the layers run with their own weights and their updates beside."""
        for stack in self._stacks:
            for group in stack.groups:
                group.folded = None


class _Folded(torch.autograd.Function):
    """Weights W' (L, out, in), with gradients for the trained factors that are in them."""

    @staticmethod
    def forward(ctx: Any, folded: Tensor, down: Tensor, up: Tensor, runs: list[slice]) -> Tensor:
        ctx.save_for_backward(down, up)
        rank = down.shape[1]
        # The mask repeats itself for each copy of the ranks; the trained factors are the first.
        ctx.runs = [slice(run.start, min(run.stop, rank)) for run in runs if run.start < rank]
        return folded.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor, None]:
        down, up = ctx.saved_tensors
        for_down, for_up = torch.zeros_like(down), torch.zeros_like(up)
        for run in ctx.runs:
            for_down[:, run] = up[..., run].transpose(1, 2) @ gradient
            for_up[..., run] = gradient @ down[:, run].transpose(1, 2)
        return None, for_down, for_up, None


def can_fold(
    modules: Mapping[str, nn.Module], updates: BatchedUpdates, *, training: bool, device: str
) -> bool:
    """Say whether all layers are ordinary ones in fp32, there all the time, and there are any.

    Args:
        modules: full name -> layer.
        updates: of an adapter.
        training: whether there will be gradients, where only small layers are worth it.
        device: `cpu`, or `meta` to plan what it takes there.
    """
    layers = [modules[name] for stack in updates.stacks for name in _names(stack)]
    return bool(layers) and all(
        type(layer) in (nn.Linear, nn.Conv2d)
        and "forward" not in vars(layer)
        and layer.weight.dtype is torch.float32
        and layer.weight.device.type == device
        and not layer.weight.requires_grad
        and not waits(layer.weight)
        and (not training or layer.weight.numel() <= SMALL)
        for layer in layers
    )


def _matrix(layer: nn.Module) -> Tensor:
    """Return a layer's weights (out, in), those of a convolution flattened."""
    return layer.get_parameter("weight").flatten(1)


def _names(stack: FactorStack) -> list[str]:
    return [name for group in stack.groups for name in group.names]


def _alike(mask: Tensor) -> bool:
    """Say whether all samples have one mask."""
    return mask.is_meta or bool((mask == mask[:1]).all())


def _runs(mask: Tensor | None, width: int) -> list[slice]:
    """Return where a mask (B, width) of equal rows of ones and zeros is one, as runs."""
    if mask is None or mask.is_meta:  # when planning: the most
        return [slice(0, width)]
    bits = [0.0, *mask[0].tolist(), 0.0]
    edges = [place for place in range(width + 1) if bits[place] != bits[place + 1]]
    return [slice(*pair) for pair in zip(edges[::2], edges[1::2], strict=True)]


class _FoldedForward:
    """A layer with the weights of the present call."""

    def __init__(self, module: Any, group: LayerGroup, index: int) -> None:
        self.bias, self.group, self.index = module.bias, group, index
        self.own, self.run = module.forward, group.layers[index].convolution or F.linear

    def __call__(self, x: Tensor) -> Tensor:
        folded = self.group.folded
        if folded is None:
            return self.own(x)  # type: ignore[no-any-return]
        output: Tensor = self.run(x, folded[self.index], self.bias)
        return output
