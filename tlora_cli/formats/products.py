"""The ortho form as other tools store it: two products of three factors, one of them the start.

The update is P diag(lambda) Q - base_p diag(base_lambda) base_q, masked by component. The names are
those of the published T-LoRA code, which LyCORIS took over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tlora_cli.formats.common import DAMAGED
from tlora_cli.formats.weights import AdapterWeights, Pair
from tlora_cli.formulas.products import delta_form
from tlora_cli.foundation.errors import UserError
from tlora_cli.methods import METHODS
from tlora_cli.methods.tlora import PRINCIPAL, UPDATE, combine, from_factors

START = ("base_q", "base_lambda", "base_p")
NOW = ("q_layer", "lambda_layer", "p_layer")


class Product(NamedTuple):
    """up diag(scale) down: down (R, in), scale (R,), up (out, R)."""

    down: Tensor
    scale: Tensor
    up: Tensor


def ortho_pair(name: str, parts: Mapping[str, Tensor], path: Path) -> Pair:
    """Return the update of one layer as a pair of width 2R, in fp32.

    Args:
        name: of the layer, for messages.
        parts: the tensors of `START` and `NOW`.
        path: of the file, for messages.

    Raises:
        UserError: if one is missing or they don't fit each other.
    """
    missing = [part for part in (*START, *NOW) if part not in parts]
    if missing:
        raise UserError(f"layer {name} lacks its {missing[0]}", str(path), DAMAGED)
    a0, s0, b0, a, s, b = (parts[part].float() for part in (*START, *NOW))
    s0, s = s0.flatten(), s.flatten()
    rank = len(s)
    fit = a.dim() == b.dim() == 2 and a.shape[0] == b.shape[1] == rank > 0
    if not fit or (a0.shape, s0.shape, b0.shape) != (a.shape, s.shape, b.shape):
        raise UserError(f"the factors of layer {name} do not fit each other", str(path), DAMAGED)
    if (b - b0).norm() < b.norm():
        # A trained product lies near its start: differences of factors keep the small update.
        return delta_form(combine(a, s, b, a0, s0, b0))
    return torch.cat([s[:, None] * a, -s0[:, None] * a0]), torch.cat([b, b0], dim=1)


def two_products(weights: AdapterWeights, pair: Pair) -> tuple[Product, Product]:
    """Return a layer's update as a product and the one that is subtracted from it.

    A principal start is given as it is, up to rounding in fp32, because LyCORIS computes it again.
    Any other is given as up' down' - up'' (-down'') of the pair's two halves, with scales of one:
    the same numbers, so that a small update isn't lost between two large products.

    Args:
        weights: whose pair it is.
        pair: down (copies * R, in) and up (out, copies * R).
    """
    down, up = (factor.float() for factor in pair)
    rank = len(down) // weights.copies
    one = torch.ones(rank)
    if weights.copies == 1:
        return Product(down, one, up), Product(down * 0, one * 0, up * 0)
    if has_principal_start(weights):
        layer = from_factors(down, up)
        return Product(*layer.trained.values()), Product(*layer.frozen.values())
    return Product(down[:rank], one, up[:, :rank]), Product(-down[rank:], one, up[:, rank:])


def has_principal_start(weights: AdapterWeights) -> bool:
    """Whether training started at the largest singular triplets of the base's weights."""
    method = METHODS.get(weights.info.method or "")
    start = method.start_name(weights.info.init) if method else None
    return weights.copies == UPDATE.copies and start == PRINCIPAL


def stored(product: Product, names: tuple[str, str, str], weight: str = "") -> dict[str, Tensor]:
    """Return the product's tensors by name, each with memory of its own.

    Args:
        product: what is stored.
        names: of down, scale and up.
        weight: what follows the names of the two matrices.
    """
    down, scale, up = names
    return {
        f"{down}{weight}": product.down.clone().contiguous(),
        scale: product.scale.clone().unsqueeze(0),
        f"{up}{weight}": product.up.clone().contiguous(),
    }
