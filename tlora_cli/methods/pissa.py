"""PiSSA: LoRA that trains the principal part of the weights (Meng et al. 2024).

    W' = W_res + B A,   W_res = W - B0 A0

A0 = sqrt(S_r) V_r^T (R, in) and B0 = U_r sqrt(S_r) (out, R), from the first R singular triplets of
W. They stay as they are, so the base's weights do, too; A and B start as their copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tlora_cli.formulas.products import Products
from tlora_cli.methods.lora import LORA
from tlora_cli.methods.spec import LowRank, Method, Start, StartSettings, by_family
from tlora_cli.methods.tlora import PRINCIPAL

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def combine(a: Tensor, b: Tensor, a0: Tensor, b0: Tensor) -> Products:
    """Return B A - B0 A0."""
    return Products(a, b, a0, b0)


def starts(
    layers: Sequence[Any], settings: StartSettings, generator: torch.Generator
) -> Iterator[Start]:
    """Yield the principal part of each layer's weights, and its trained copy."""
    from tlora_cli.methods.starts import draw_starts

    for layer in layers:
        [(down, scale, up)] = draw_starts([layer], settings.rank, PRINCIPAL, generator, 1.0)
        root = scale.sqrt()
        a0, b0 = root[:, None] * down, up * root
        yield Start({"A": a0.clone(), "B": b0.clone()}, {"A0": a0, "B0": b0})


PISSA = Method(
    name="pissa",
    about="",
    starts=starts,
    update=LowRank(combine, parts=("A", "B", "A0", "B0"), copies=2),
    masked_form=LORA.masked_form,
    init=PRINCIPAL,
    steps=by_family(sdxl=500),  # the paper does not run it: LoRA's
)
