"""Helpers that the readers of foreign formats share."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tlora_cli.families import FAMILIES, Family
from tlora_cli.formats.weights import AdapterInfo, AdapterWeights, Pair
from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.errors import UserError
from tlora_cli.methods import PLAIN, method_of_pair

DAMAGED = "get the file again from where it was made"


def method_name(copies: int, masked: bool) -> str:
    """Return the method of factors with these copies, with or without a rank schedule."""
    return method_of_pair(copies, masked).name


def families_of(names: Iterable[str]) -> set[str]:
    """Return the families whose layers these are, in any naming."""
    there = list(names)
    return {name for name, family in FAMILIES.items() if family.knows(there)}


def only_family(names: Iterable[str], header: Mapping[str, str]) -> str | None:
    """Return the family of the layers; None if it is none.

    Args:
        names: of the layers, in any naming.
        header: of the file. Of several families with layers of these names it is the one that the
            header says, else the first.
    """
    there = families_of(names)
    found = [name for name in FAMILIES if name in there]
    said = [name for name in found if _is_said(FAMILIES[name], header)]
    return next(iter((said if len(said) == 1 else []) + found), None)


def _is_said(family: Family, header: Mapping[str, str]) -> bool:
    """Say whether a file's header names what other tools call the family."""
    module = family.kohya and family.kohya.network_module
    said = header.get("modelspec.architecture"), header.get("ss_network_module")
    return any(one and one in said for one in (family.architecture, module))


def scaled_pair(name: str, parts: dict[str, Tensor], scale: float, path: Path) -> Pair:
    """Return down (r, in) and up (out, r) in fp32, with the scale folded into up.

    Those of a convolution are (r, in, k, k) and (out, r, 1, 1).

    Args:
        name: of the layer, for messages.
        parts: `down` and `up`.
        scale: what the product is multiplied with.
        path: of the file, for messages.

    Raises:
        UserError: if one is missing or they don't fit each other.
    """
    down, up = parts.get("down"), parts.get("up")
    if down is None or up is None:
        missing = "down" if down is None else "up"
        raise UserError(f"layer {name} lacks its {missing} factor", str(path), DAMAGED)
    if not fit_each_other(down, up):
        raise UserError(
            f"the factors of layer {name} do not fit each other: "
            f"{tuple(down.shape)} and {tuple(up.shape)}",
            where=str(path),
            do=DAMAGED,
        )
    return down.float(), up.float() * scale


def alpha_of(name: str, alpha: Tensor, path: Path) -> float:
    """Return a layer's alpha, which is one number.

    Raises:
        UserError: if it is several.
    """
    if alpha.numel() != 1:
        raise UserError(
            f"alpha of layer {name} is {alpha.numel()} numbers, not one", str(path), DAMAGED
        )
    return float(alpha)


def as_of(pair: Pair, layer: Any) -> Pair:
    """Return factors in the form of their layer, linear or a convolution.

    Tools write the factors of one with the 1 x 1 places of the other, which is the same update.
    """
    down, up = pair
    flat, square = down.shape[2:] == (), down.shape[2:] == (1, 1)
    if isinstance(layer, nn.Linear) and square:
        return down.flatten(1), up.flatten(1)
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and flat:
        return down[:, :, None, None], up[:, :, None, None]
    return pair


def fit_each_other(down: Tensor, up: Tensor) -> bool:
    """Whether factors are those of a linear layer, or of a convolution, of one width."""
    one_kind = (down.dim(), up.shape[2:]) in ((2, ()), (4, (1, 1)))
    return up.dim() > 1 and one_kind and down.shape[0] == up.shape[1] > 0


def plain_lora(layers: dict[str, Pair], family: str | None, path: Path) -> AdapterWeights:
    """Return a LoRA that is at full rank at every timestep."""
    if not layers:
        raise UserError(
            "the LoRA changes text encoders alone, and tlora applies what changes a UNet or a "
            "transformer",
            where=str(path),
            do="use a LoRA that was trained on the UNet or the transformer, too",
        )
    rank = max(down.shape[0] for down, _ in layers.values())
    schedule = RankSchedule(rank, rank, kind="constant")
    return AdapterWeights(layers, 1, schedule, family, AdapterInfo(method=PLAIN))


def warn_of_text_layers(count: int, path: Path) -> None:
    """Warn that the LoRA's text encoder layers are left out, if it has any."""
    if count:
        warnings.warn(
            f"{path.name} also adapts text encoders ({count} tensors); they are not applied, so "
            "pictures differ from those of other tools",
            stacklevel=2,
        )
