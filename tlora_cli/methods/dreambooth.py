"""DreamBooth: full fine-tuning, of the attention or of everything (Ruiz et al. 2022).

    W' = W + D

D = 0 at the start, fp32, for every trained parameter. Training D with Adam is training W, but
weight decay draws W to the base, not to zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tlora_cli.methods.spec import Method, Start, StartSettings, Tensors, by_family

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_CHANGE = "change."
"""Prefix of a parameter's name in that of its D."""


def weights(own: Tensors, learned: Tensors) -> dict[str, Tensor]:
    """Return W + D."""
    changes = {name.removeprefix(_CHANGE): change for name, change in learned.items()}
    return {name: own[name] + change for name, change in changes.items()}


def weight_starts(
    layers: Sequence[Any], settings: StartSettings, generator: torch.Generator
) -> Iterator[Start]:
    """Yield D = 0 for the weight of each layer, without its bias."""
    return (_start({"weight": layer.weight}) for layer in layers)


def all_starts(
    modules: Sequence[Any], settings: StartSettings, generator: torch.Generator
) -> Iterator[Start]:
    """Yield D = 0 for all parameters of each module's own."""
    return (_start(dict(module.named_parameters(recurse=False))) for module in modules)


def _start(own: Tensors) -> Start:
    import torch

    return Start(
        {f"{_CHANGE}{n}": torch.zeros_like(w, dtype=torch.float32) for n, w in own.items()}
    )


DREAMBOOTH = Method(
    name="dreambooth",
    about="attention weights",
    starts=weight_starts,
    weights=weights,
    steps=by_family(sdxl=2000),
    settings={"train": {"optimizer": {"name": "adamw", "lr": 2e-5}}},
)
DREAMBOOTH_FULL = replace(
    DREAMBOOTH,
    name="dreambooth_full",
    about="all weights",
    starts=all_starts,
    reach="everything",
)
