"""Names for sets of a denoiser's layers, the same in every family: how far an adapter reaches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tlora_cli.families.wrapping import modules_of
from tlora_cli.foundation.errors import UserError

if TYPE_CHECKING:
    from torch import nn

PUBLISHED, LINEAR, WIDEST = "attention", "linear", "all"
REACHES = {
    PUBLISHED: "the projections of attention, as published",
    LINEAR: "all linear layers of the transformer blocks",
    WIDEST: "these and the residual blocks, with their convolutions, where the family has any",
}
"""Name -> layers, in words. Each family says which of its own layers these are."""


def expression_of(family: str, known: Mapping[str, str], targets: str | None) -> str:
    """Return the expression for full layer names that a name means, or the given one.

    Args:
        family: what messages call it.
        known: its expressions by name.
        targets: a name or an expression; None as `attention`.

    Raises:
        UserError: if the family doesn't say what the name means.
    """
    if targets in REACHES and targets not in known:
        raise UserError(
            f"{family} does not say which layers `{targets}` are",
            where="adapter.targets",
            do=f"use {' or '.join(known)}, or a regular expression for full layer names",
        )
    return known.get(targets, targets) if targets else known[PUBLISHED]


def target_layers(
    family: str, known: Mapping[str, str], denoiser: nn.Module, targets: str | None
) -> dict[str, Any]:
    """Return the layers whose full name matches, in the model's order; see `Family`."""
    from torch import nn

    try:
        pattern = re.compile(expression_of(family, known, targets))
    except re.error as error:
        raise UserError(
            f"adapter.targets is not a regular expression: {error}", where=repr(targets)
        ) from error
    # An expression means linear layers, as it did before convolutions could be adapted.
    kinds = (nn.Linear, nn.Conv2d) if targets == WIDEST else (nn.Linear,)
    there = {name: m for name, m in modules_of(denoiser).items() if isinstance(m, kinds)}
    layers = {name: layer for name, layer in there.items() if pattern.fullmatch(name)}
    if not layers:
        raise UserError(
            f"no linear layer of the {family} matches adapter.targets",
            where=repr(pattern.pattern),
            do=f"use {', '.join(known)}, or an expression that matches a whole layer name, such as "
            f"{next(iter(there), 'none')}",
        )
    return layers
