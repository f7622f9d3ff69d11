"""Parametrizations, and the methods that pair one with a rank schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlora_cli.adapters.base import Parametrization
from tlora_cli.adapters.fixed import Fixed
from tlora_cli.adapters.low_rank import LowRank
from tlora_cli.adapters.ortho import Ortho
from tlora_cli.adapters.starts import STARTS, draw_start

__all__ = [
    "INIT_STD",
    "METHODS",
    "STARTS",
    "Fixed",
    "LowRank",
    "Method",
    "Ortho",
    "Parametrization",
    "StartSettings",
    "rebuild",
]

INIT_STD: dict[str, Callable[[int], float]] = {
    "1/r": lambda rank: 1 / rank,
    "1/sqrt(r)": lambda rank: 1 / math.sqrt(rank),
}
"""Standard deviation of a random start, from the rank."""


@dataclass(frozen=True)
class StartSettings:
    """How a layer's parameters begin; `init` and `std` concern the ortho family only."""

    rank: int
    init: str
    init_std: str


def _low_rank(layer: nn.Linear, start: StartSettings, chance: torch.Generator) -> Parametrization:
    return LowRank.start(layer, start.rank, chance)


def _ortho(layer: nn.Linear, start: StartSettings, chance: torch.Generator) -> Parametrization:
    std = INIT_STD[start.init_std](start.rank)
    return Ortho(draw_start(layer, start.rank, start.init, chance, std))


@dataclass(frozen=True)
class Method:
    """A method of the paper: a parametrization, with or without a rank schedule."""

    create: Callable[[nn.Linear, StartSettings, torch.Generator], Parametrization]
    masked: bool


METHODS: dict[str, Method] = {
    "lora": Method(_low_rank, masked=False),
    "vanilla_tlora": Method(_low_rank, masked=True),
    "ortho_lora": Method(_ortho, masked=False),
    "tlora": Method(_ortho, masked=True),
}
"""Name -> method (T-LoRA, tables 1 and 2)."""


def rebuild(down: Tensor, up: Tensor, copies: int) -> Parametrization:
    """Return trainable parameters that give a saved pair of factors."""
    return Ortho.from_factors(down, up) if copies == Ortho.copies else LowRank(down, up)
