"""LoRA (Hu et al. 2021) as the T-LoRA authors start it, and LoRA under the rank schedule.

    W_t = W + B M_t A

A (R, in) is random and B (out, R) zero at the start; there is no scale alpha / R. M_t = I for LoRA;
for vanilla T-LoRA it is the schedule's mask, see `methods/tlora.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tlora_cli.formulas.products import Products
from tlora_cli.methods.spec import LowRank, Method, Start, StartSettings, by_family

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def combine(a: Tensor, b: Tensor) -> Products:
    """Return A and B themselves."""
    return Products(a, b)


def starts(
    layers: Sequence[Any], settings: StartSettings, generator: torch.Generator
) -> Iterator[Start]:
    """Yield A ~ N(0, std 1/R) and B = 0 for each layer; only its shape is read."""
    import torch

    rank = settings.rank
    for layer in layers:
        down = torch.empty(rank, layer.in_features).normal_(std=1 / rank, generator=generator)
        yield from_factors(down, torch.zeros(layer.out_features, rank))


def from_factors(down: Tensor, up: Tensor) -> Start:
    """Return trainable tensors for a pair, down (R, in) and up (out, R)."""
    return Start({"A": down, "B": up})


UPDATE = LowRank(combine, parts=("A", "B"))

VANILLA_TLORA = Method(
    name="vanilla_tlora",
    about="LoRA with the schedule",
    starts=starts,
    update=UPDATE,
    masked=True,
    # On FLUX only LoRA's and T-LoRA's are published; under the schedule it takes T-LoRA's.
    steps=by_family(sdxl=500, flux=500),
    compared=False,
)
LORA = replace(
    VANILLA_TLORA,
    name="lora",
    about="",
    masked=False,
    masked_form=VANILLA_TLORA.name,
    steps=by_family(sdxl=500, flux=400),
)
