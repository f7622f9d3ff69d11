"""Operations and FLOPs of a training step, counted on the meta device: exact, on any machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmark.inputs import SIDE, denoiser_call
from tlora_cli import attach
from tlora_cli.families.standard import meta_denoiser


class Operations(TorchDispatchMode):
    """Counts what is dispatched below autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func] += 1
        return func(*args, **(kwargs or {}))

    def without_views(self) -> int:
        """Return how many there were that computed or copied something."""
        return sum(count for operation, count in self.counts.items() if not is_view(operation))


def is_view(operation: Any) -> bool:
    """Say whether an operation only looks at memory in another way."""
    returns = operation._schema.returns
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returns)


@dataclass(frozen=True)
class Counted:
    """Counts of one forward and backward pass."""

    operations: int
    """Other than views."""
    flops: int


def count_step(
    family: str,
    method: str | None,
    rank: int = 64,
    *,
    side: int = SIDE,
    tokens: int | None = None,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    config: str | None = None,
) -> Counted:
    """Count a step of a method on a family's standard configuration.

    Args:
        family: `sdxl` or `flux`.
        method: None for the bare denoiser, frozen, whose input takes the gradient.
        rank: R.
        side: of the latent; default that of 1024 pixels.
        tokens: of the text; default the family's.
        batch: samples.
        dtype: of the denoiser.
        config: folder of another base of the family.
    """
    denoiser: Any = meta_denoiser(family, config).to(dtype).requires_grad_(False)
    if method is not None:
        attach(denoiser, method, rank)
    call = denoiser_call(
        family, denoiser, side=side, batch=batch, tokens=tokens, needs_grad=method is None
    )
    operations, flops = Operations(), FlopCounterMode(display=False)
    with flops, operations:
        call().float().mean().backward()
    return Counted(operations.without_views(), flops.get_total_flops())
