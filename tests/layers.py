"""What a method changes in one layer, without an adapter around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tlora_cli.injection.changes import LowRankUpdate, new_change
from tlora_cli.methods import METHODS, Start, StartSettings, lora, tlora


def changed_layer(
    method: str, module: Any, generator: torch.Generator | None = None, **settings: Any
) -> Any:
    """Return a method's change of a module at its start."""
    chosen, own = METHODS[method], StartSettings(**settings)
    [start] = chosen.starts([module], own, generator or torch.Generator())
    return new_change(chosen, start, own.rank)


def ortho(start: Sequence[Tensor], now: Sequence[Tensor] | None = None) -> LowRankUpdate:
    """Return T-LoRA's update with the start (A0, S0, B0) and the present (A, S, B)."""
    now = now or [tensor.clone() for tensor in start]
    tensors = Start(
        dict(zip(("A", "S", "B"), now, strict=True)),
        dict(zip(("A0", "S0", "B0"), start, strict=True)),
    )
    return LowRankUpdate(tlora.UPDATE, tensors, len(start[0]))


def plain(down: Tensor, up: Tensor) -> LowRankUpdate:
    """Return LoRA's update."""
    return LowRankUpdate(lora.UPDATE, lora.from_factors(down, up), len(down))
