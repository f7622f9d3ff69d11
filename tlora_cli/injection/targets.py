"""The modules that a method changes, and whether it can."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tlora_cli.families import Family
from tlora_cli.families.reach import LINEAR, REACHES, WIDEST, expression_of
from tlora_cli.families.wrapping import modules_of
from tlora_cli.formulas.convolution import ConvolutionMatrix
from tlora_cli.foundation.errors import UserError
from tlora_cli.methods import METHODS, Method


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
    if targets in REACHES:
        targets = expression_of(family.name, family.reaches, targets)
    pattern = re.compile(targets or ".*")
    found = {
        name: module
        for name, module in modules_of(denoiser).items()
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


def as_seen_by(method: Method, module: nn.Module) -> Any:
    """Return a module as a method's start reads it: a convolution as a matrix, for low ranks."""
    flattened = method.low_rank and isinstance(module, nn.Conv2d)
    return ConvolutionMatrix(module) if flattened else module


def check_convolutions(method: Method, layers: Mapping[str, nn.Module]) -> None:
    """Raise a UserError if there is a convolution and the method can't change one."""
    found = next((n for n, layer in layers.items() if isinstance(layer, nn.Conv2d)), None)
    if found and method.no_convolutions:
        raise UserError(method.no_convolutions, where=found, do=f"use adapter.targets: {LINEAR}")


def fitting_rank(
    rank: int, layers: Mapping[str, nn.Module], targets: str | None
) -> dict[str, nn.Module]:
    """Return the layers at least as wide as the rank; a warning tells of those left out.

    Layers are left out where `linear` or `all` chose them. Where an expression did, or they are the
    published ones, all must fit.

    Raises:
        UserError: if a layer must fit and doesn't, or none fits.
    """
    widths = {name: _width(layer) for name, layer in layers.items()}
    narrow = [name for name, width in widths.items() if rank > width]
    if not narrow:
        return dict(layers)
    if targets not in (LINEAR, WIDEST):
        raise _too_high(rank, narrow[0], widths[narrow[0]])
    if len(narrow) == len(widths):
        widest = max(widths, key=widths.__getitem__)
        raise _too_high(rank, widest, widths[widest])
    warnings.warn(
        f"{len(narrow)} of the {len(widths)} layers are narrower than rank {rank} and left out, "
        f"such as {narrow[0]}",
        stacklevel=2,
    )
    return {name: layer for name, layer in layers.items() if name not in narrow}


def _too_high(rank: int, name: str, width: int) -> UserError:
    return UserError(
        f"rank {rank} is above the width {width} of layer {name}",
        where="adapter.rank",
        do=f"choose a rank of at most {width}, or other adapter.targets",
    )


def _width(layer: Any) -> int:
    matrix = ConvolutionMatrix(layer) if isinstance(layer, nn.Conv2d) else layer
    return min(matrix.in_features, matrix.out_features)


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
