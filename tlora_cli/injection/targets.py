"""The modules that a method changes, and whether it can."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tlora_cli.families import Family
from tlora_cli.foundation.errors import UserError
from tlora_cli.methods import METHODS


def chosen_modules(
    method: str, family: Family, denoiser: nn.Module, targets: str | None
) -> dict[str, nn.Module]:
    """Return the modules that a method changes, in the model's order.

    Raises:
        UserError: if nothing matches, or the method is not defined for the family.
    """
    reach = METHODS[method].reach
    if reach == "nothing":
        return {}
    if reach == "attention":
        return dict(family.target_layers(denoiser, targets))
    if reach == "text_keys_values":
        if family.text_keys_values is None:
            raise UserError(
                f"{method} trains the keys and values of cross-attention, and {family.name} has "
                "none",
                where="adapter.method",
                do="use another method, or an SDXL base",
            )
        return dict(family.target_layers(denoiser, targets or family.text_keys_values))
    pattern = re.compile(targets or ".*")
    found = {
        name: module
        for name, module in denoiser.named_modules()
        if pattern.fullmatch(name)
        and _has_parameters(module)
        and (reach == "everything" or _has_matrix(module))
    }
    if not found:
        raise UserError("no module matches adapter.targets", where=repr(targets))
    return found


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _has_matrix(module: nn.Module) -> bool:
    """Whether it is a linear layer, a convolution or a normalization with a weight."""
    return isinstance(module, nn.Linear | nn.Conv2d) or (
        isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.dim() == 1  # type: ignore[operator]
    )


def check_rank(rank: int, layers: Mapping[str, Any]) -> None:
    """Raise a UserError if the rank is above the width of a layer."""
    for name, layer in layers.items():
        width = min(layer.in_features, layer.out_features)
        if rank > width:
            raise UserError(
                f"rank {rank} is above the width {width} of layer {name}",
                where="adapter.rank",
                do=f"choose a rank of at most {width}, or other adapter.targets",
            )


def check_blocks(sides: Sequence[str], blocks: int, layers: Mapping[str, Any]) -> None:
    """Raise a UserError if sides of a layer can't be cut into that many equal blocks.

    Args:
        sides: of a layer, that a method's blocks must divide; `in_features`, `out_features`.
        blocks: how many.
        layers: by name.
    """
    for name, layer in layers.items():
        for side in sides:
            width = getattr(layer, side)
            if width % blocks:
                whole = [n for n in range(1, width + 1) if width % n == 0]
                raise UserError(
                    f"{width} features of layer {name} can't be cut into {blocks} equal blocks",
                    where="adapter.blocks",
                    do=f"choose one of {', '.join(map(str, whole))}",
                )


def check_unquantized(method: str, modules: Mapping[str, nn.Module]) -> None:
    """Raise a UserError if a module's weights are quantized: they can't be changed then."""
    for module in modules.values():
        for parameter in module.parameters(recurse=False):
            if not parameter.is_floating_point():
                raise UserError(
                    f"{method} changes the base's weights, which are quantized",
                    where="adapter.method",
                    do="drop train.quantization, or use a low-rank method",
                )
