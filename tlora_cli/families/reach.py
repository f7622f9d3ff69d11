"""How far an adapter reaches: names for sets of a denoiser's layers, the same in every family."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tlora_cli.foundation.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from tlora_cli.families.spec import Family

PUBLISHED, LINEAR, WIDEST = "attention", "linear", "all"
REACHES = {
    PUBLISHED: "the projections of attention, as published",
    LINEAR: "all linear layers of the transformer blocks",
    WIDEST: "these and the residual blocks, with their convolutions, where the family has any",
}
"""Name -> layers, in words. Each family says which of its own layers these are."""


def expression_of(family: Family, targets: str | None) -> str:
    """Return the expression for full layer names that a name means, or the given one.

    Raises:
        UserError: if the family doesn't say what the name means.
    """
    own = family.reaches
    if targets in REACHES and targets not in own:
        raise UserError(
            f"{family.name} does not say which layers `{targets}` are",
            where="adapter.targets",
            do=f"use {' or '.join(own)}, or a regular expression for full layer names",
        )
    return own.get(targets, targets) if targets else family.targets


def target_layers(family: Family, denoiser: nn.Module, targets: str | None) -> dict[str, Any]:
    """Return the layers whose full name matches, in the model's order; see `Family`."""
    from torch import nn

    try:
        pattern = re.compile(expression_of(family, targets))
    except re.error as error:
        raise UserError(
            f"adapter.targets is not a regular expression: {error}", where=repr(targets)
        ) from error
    # An expression means linear layers, as it did before convolutions could be adapted.
    kinds = (nn.Linear, nn.Conv2d) if targets == WIDEST else (nn.Linear,)
    known = {name: m for name, m in denoiser.named_modules() if isinstance(m, kinds)}
    layers = {name: layer for name, layer in known.items() if pattern.fullmatch(name)}
    if not layers:
        example = next(iter(known), "none")
        raise UserError(
            f"no linear layer of the {family.name} {family.denoiser} matches adapter.targets",
            where=repr(pattern.pattern),
            do=f"the expression must match a whole layer name, such as {example}",
        )
    return layers
