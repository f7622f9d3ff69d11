"""T-LoRA, and its update without a schedule, Ortho-LoRA (Soboleva et al., arXiv 2507.05964).

    W_t  = W + B diag(S) M_t A - B0 diag(S0) M_t A0                      (section 4.2)
    M_t  = diag(1, ..., 1, 0, ..., 0), r(t) ones                         (section 4.1)
    r(t) = floor((R - r_min) (T - t) / T) + r_min                        (eq. 4)

A0 (R, in), S0 (R,) and B0 (out, R) are singular triplets of a matrix, by default the last ones of a
random matrix, so the rows of A0 and the columns of B0 are orthonormal. They stay as they are; A, S
and B start as their copies and are trained, so training starts at W. The noisier the timestep, the
fewer components act: r(t) is `linear` in `formulas/schedules.py`, and the mask is applied where
all low-rank methods are, in `formulas/masked_low_rank.py`. Ortho-LoRA has M_t = I.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tlora_cli.formulas.products import Products
from tlora_cli.methods.spec import LowRank, Method, Start, StartSettings, by_family

if TYPE_CHECKING:
    import torch
    from torch import Tensor

STARTS = tuple(
    f"{source}_{place}"
    for source in ("random", "weights")
    for place in ("principal", "middle", "last")
)
"""The triplets of a start, and their matrix: a random one, or the layer's weights."""
PRINCIPAL = "weights_principal"
"""The one of them at the largest triplets of the weights."""

INIT_STD: dict[str, Callable[[int], float]] = {
    "1/r": lambda rank: 1 / rank,
    "1/sqrt(r)": lambda rank: 1 / math.sqrt(rank),
}
"""Standard deviation of the random matrix, from the rank: that of the published code, and the
paper's N(0, 1/r) read as a variance."""


def combine(a: Tensor, s: Tensor, b: Tensor, a0: Tensor, s0: Tensor, b0: Tensor) -> Products:
    """Return B (S A) - B0 (S0 A0)."""
    return Products(s.unsqueeze(-1) * a, b, s0.unsqueeze(-1) * a0, b0)


def starts(
    layers: Sequence[Any], settings: StartSettings, generator: torch.Generator
) -> Iterator[Start]:
    """Yield the singular triplets of each layer's start, and their trained copies."""
    from tlora_cli.methods.starts import draw_starts

    std = INIT_STD[settings.init_std](settings.rank)
    for triplets in draw_starts(layers, settings.rank, settings.init, generator, std):
        yield _start(triplets, tuple(tensor.clone() for tensor in triplets))


def from_factors(down: Tensor, up: Tensor) -> Start:
    """Return trainable tensors for a saved pair; the function is the same.

    The pair holds S A, S0 A0 and both B, but not S apart from A: each row is split into its length
    (S) and direction (A), which is exact for the frozen start, whose rows are unit.

    Args:
        down: (2R, in), S A above its distance from S0 A0.
        up: (out, 2R), the distance of B from B0 beside B0.
    """
    rank = down.shape[0] // 2
    scaled, moved = down[:rank].float(), down[rank:].float()
    start_down, start_scale = _split_rows(scaled - moved)
    now_down, now_scale = _split_rows(scaled)
    start_up = up[:, rank:].float()
    return _start(
        (start_down, start_scale, start_up.clone()),
        (now_down, now_scale, up[:, :rank].float() + start_up),
    )


def _start(start: Sequence[Tensor], now: Sequence[Tensor]) -> Start:
    """Return a layer's tensors from the start's (A0, S0, B0) and the present (A, S, B)."""
    return Start(
        dict(zip(("A", "S", "B"), now, strict=True)),
        dict(zip(("A0", "S0", "B0"), start, strict=True)),
    )


def _split_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    length = rows.norm(dim=1)
    return rows / length.clamp(min=torch.finfo(rows.dtype).tiny).unsqueeze(1), length


UPDATE = LowRank(combine, parts=("A", "S", "B", "A0", "S0", "B0"), copies=2)

TLORA = Method(
    name="tlora",
    about="both",
    starts=starts,
    update=UPDATE,
    masked=True,
    reads_init=True,
    steps=by_family(sdxl=800, flux=500),
    compared=False,
)
ORTHO_LORA = replace(
    TLORA,
    name="ortho_lora",
    about="orthogonal start",
    masked=False,
    masked_form=TLORA.name,
    # On FLUX only LoRA's and T-LoRA's are published; without a schedule it takes LoRA's.
    steps=by_family(sdxl=800, flux=400),
)
