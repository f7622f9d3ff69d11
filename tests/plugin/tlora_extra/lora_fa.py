"""LoRA-FA (Zhang et al. 2023): W + B M_t A, where A (R, in) stays as it was drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tlora_cli.methods.lora import UPDATE
from tlora_cli.methods.spec import Method, Start, StartSettings

if TYPE_CHECKING:
    import torch


def starts(
    layers: Sequence[Any], settings: StartSettings, generator: torch.Generator
) -> Iterator[Start]:
    """Yield a frozen A ~ N(0, std 1/R) and B = 0 for each layer."""
    import torch

    rank = settings.rank
    for layer in layers:
        down = torch.empty(rank, layer.in_features).normal_(std=1 / rank, generator=generator)
        yield Start({"B": torch.zeros(layer.out_features, rank)}, frozen={"A": down})


LORA_FA = Method(
    name="lora_fa", about="LoRA with A frozen", starts=starts, update=UPDATE, masked=True
)
