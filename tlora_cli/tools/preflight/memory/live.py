"""Count the bytes that are alive while code runs on tensors without values (the meta device)."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operations make, until nothing holds them any more.

    What is there before is not counted. Python lets go of tensors at the same moments as in a real
    run, so the peak is what an allocator would see, but for its rounding and for scratch memory
    inside of operations.

    Attributes:
        now: bytes alive.
        peak: most bytes that were ever alive.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        before = {
            leaf.untyped_storage()._cdata
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, Tensor)
        }
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in before:
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class _Flash(torch.autograd.Function):
    """Attention that keeps its inputs, its output and one number a row, never the scores."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        row_sums = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, output, row_sums)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = ctx.saved_tensors[:3]
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def flash_attention() -> Iterator[None]:
    """Inside, `scaled_dot_product_attention` takes the memory that its fused kernels take.

    On the meta device it would be the plain formula, with all scores. The function is replaced, as
    a torch function mode is not in force where a backward pass computes blocks again.
    """

    def flash(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **more: Any) -> Any:
        return _Flash.apply(query, key, value)  # type: ignore[no-untyped-call]

    own = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = flash
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = own
