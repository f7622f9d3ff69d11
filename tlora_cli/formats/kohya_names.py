"""kohya's layer names -> the layers of the diffusers denoiser.

Two namings occur: diffusers' own, and the original model's; with underscores in both cases.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from tlora_cli.families import FAMILIES


def known_names(layer_names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return every name kohya could use -> the layers it means, of this denoiser.

    Args:
        layer_names: the denoiser's linear layers and convolutions.
    """
    present = set(layer_names)
    names: dict[str, tuple[str, ...]] = {name.replace(".", "_"): (name,) for name in layer_names}
    for family in FAMILIES.values():
        for alias, layers in family.original_names(present):
            if present.issuperset(layers):
                names[alias] = layers
    return names


def share_of_rows(layer: str) -> int:
    """Return a layer's outputs in one that stands for several, in units of the model's width."""
    for family in FAMILIES.values():
        if family.knows([layer]):
            return family.row_shares.get(layer.rpartition(".")[2], 1)
    return 1


def turned(name: str, up: Tensor) -> Tensor:
    """Return the rows of a layer as the other model has them, there and back.

    The original model's last modulation gives shift before scale, diffusers' scale before shift.
    """
    if name not in {name for family in FAMILIES.values() for name in family.turned_layers}:
        return up
    return torch.cat(up.chunk(2)[::-1])
