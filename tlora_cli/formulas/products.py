"""An update of low rank as products of factors, and as the one pair that layers run with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Products(NamedTuple):
    """An update up down - up0 down0; up0 and down0 are constants, or None where there are none.

    down and down0 are (..., R, in), up and up0 (..., out, R).
    """

    down: Tensor
    up: Tensor
    down0: Tensor | None = None
    up0: Tensor | None = None


def delta_form(products: Products) -> tuple[Tensor, Tensor]:
    """Return one pair of factors, of width R or 2R, whose product is the update.

    down' = [down ; down - down0], up' = [up - up0 , up0], because
    (up - up0) down + up0 (down - down0) = up down - up0 down0.
    It is exactly zero where up = up0 and down = down0. Subtracting the two products instead loses
    the small update to rounding in bf16.
    """
    down, up, down0, up0 = products
    if down0 is None or up0 is None:
        return down, up
    import torch

    return torch.cat([down, down - down0], dim=-2), torch.cat([up - up0, up0], dim=-1)
