"""Frozen blocks that wait in main memory, and are on the device only while they compute.

A block's weights are one piece of host memory. The device has two slots of the largest block's
size: the block that computes has the one, and the next is copied into the other meanwhile. "Next"
is the neighbor in the direction that blocks run in: upward in a forward pass, downward in a
backward pass, which recomputes one block after the other (activation checkpointing).

While a block waits, its parameters are NaN of their shape, in the memory of one number. So nothing
that reads them at the wrong time stays unnoticed. Nor does a backward pass without checkpointing,
which would find another block's weights in the slot: PyTorch's count of changes is raised whenever
a block's weights go, so it refuses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from tlora_cli.foundation.devices import CopyStream

ALIGNMENT = 256
"""Bytes that a tensor's place in a block's memory is a multiple of, as CUDA allocates them."""

TURNS = 2
"""Number of blocks that are on the device: the one that computes, and the next."""


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks that a model of diffusers or transformers consists of, in their order.

    A block within a block belongs to the outer one. What there is one of alone, such as a table of
    embeddings, is none.
    """
    names = getattr(model, "_repeated_blocks", None) or getattr(model, "_no_split_modules", None)
    blocks = list(_outermost(model, set(names or ())))
    count = Counter(type(block) for block in blocks)
    return [block for block in blocks if count[type(block)] > 1]


def waits(parameter: Tensor) -> bool:
    """Return whether a parameter is that of a block that waits."""
    return parameter.numel() > 1 and not any(parameter.stride())


def _outermost(module: nn.Module, names: set[str]) -> Iterator[nn.Module]:
    for child in module.children():
        if type(child).__name__ in names:
            yield child
        else:
            yield from _outermost(child, names)


@dataclass(frozen=True)
class _Part:
    """A parameter, and its place in the memory of its block."""

    parameter: nn.Parameter
    first: int
    shape: torch.Size
    dtype: torch.dtype
    waiting: Tensor

    def within(self, memory: Tensor) -> Tensor:
        """Return the parameter's values in a block's memory, bytes (N,)."""
        size = self.shape.numel() * self.dtype.itemsize
        return memory[self.first : self.first + size].view(self.dtype).view(self.shape)


class _Block:
    """The weights of a block on the host."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.parts: list[_Part] = []
        size = 0
        for parameter in module.parameters():
            nothing = torch.full(
                (), torch.nan if parameter.is_floating_point() else 0, dtype=parameter.dtype
            )
            waiting = nothing.to(device).expand(parameter.shape)
            self.parts.append(_Part(parameter, size, parameter.shape, parameter.dtype, waiting))
            size += -(-parameter.nbytes // ALIGNMENT) * ALIGNMENT
        self.memory = torch.empty(size, dtype=torch.uint8, pin_memory=CopyStream.pins(device))
        for part in self.parts:
            part.within(self.memory).copy_(part.parameter.data)
            part.parameter.data = part.waiting

    def come(self, slot: Tensor) -> None:
        """Let the parameters be those in a slot."""
        for part in self.parts:
            part.parameter.data = part.within(slot)

    def go(self) -> None:
        """Let the parameters wait."""
        for part in self.parts:
            part.parameter.data = part.waiting
        increment_version([part.parameter for part in self.parts])


class OffloadedBlocks:
    """Blocks that take turns on a device. It lives as long as the blocks: their hooks hold it.

    Args:
        blocks: in the order in which they run; none of their parameters is trained.
        device: where they compute.

    Attributes:
        nbytes: what they take there, all in all.

    Raises:
        ValueError: if there is no block, or a parameter is to be trained or belongs to two blocks.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        if not blocks:
            raise ValueError("there are no blocks to offload")
        parameters = [parameter for block in blocks for parameter in block.parameters()]
        if any(parameter.requires_grad for parameter in parameters):
            raise ValueError("a block with parameters that are trained can't be offloaded")
        if len({id(parameter) for parameter in parameters}) < len(parameters):
            raise ValueError("blocks that share a parameter can't be offloaded")
        self._blocks = [_Block(block, device) for block in blocks]
        largest = max(block.memory.numel() for block in self._blocks)
        self._slots = [torch.empty(largest, dtype=torch.uint8, device=device) for _ in range(TURNS)]
        self._stream = CopyStream(device)
        self._held: list[int | None] = [None] * TURNS
        self._last = -1
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(partial(self._enter, number))

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(slot.nbytes for slot in self._slots)

    def _enter(self, number: int, module: nn.Module, inputs: Any) -> None:
        if number not in self._held:
            self._fetch(number, 1 - self._held.index(self._last) if self._last in self._held else 0)
        self._stream.wait()
        slot = self._held.index(number)
        self._blocks[number].come(self._slots[slot])
        upward = number > self._last or (number == 0 and self._last != 1)
        following = number + (1 if upward else -1)
        self._last = number
        if 0 <= following < len(self._blocks) and following not in self._held:
            self._fetch(following, 1 - slot)

    def _fetch(self, number: int, slot: int) -> None:
        """Begin to copy a block into a slot, whose own is done: its backward pass was told."""
        before, memory = self._held[slot], self._blocks[number].memory
        if before is not None:
            self._blocks[before].go()
        self._stream.copy(memory, self._slots[slot][: memory.numel()])
        self._held[slot] = number


def offload(model: nn.Module, device: torch.device) -> OffloadedBlocks:
    """Put a frozen model on a device, but for its blocks, which take turns there.

    Args:
        model: of diffusers or transformers, with blocks that it names itself.
        device: where it computes.

    Raises:
        ValueError: if it names no blocks, or some of it is trained.
    """
    blocks = OffloadedBlocks(repeated_blocks(model), device)
    model.to(device)  # what waits is there already
    return blocks
