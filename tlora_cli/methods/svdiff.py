"""SVDiff: only the singular values move.

    W' = U diag(relu(S + d)) V^T

d = 0 at the start; convolutions are (out, in * h * w) matrices. The one-dimensional weights of
normalization layers are shifted, w' = w + d. Han et al. 2023, "SVDiff: Compact Parameter Space for
Diffusion Fine-Tuning".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tlora_cli.methods.spec import Method, Start, StartSettings, Tensors, by_family

if TYPE_CHECKING:
    import torch
    from torch import Tensor

VECTOR_RATE = 1e-3
"""Learning rate of shifts of one-dimensional weights, relative to that of singular values: 1e-6
against 1e-3, as published."""


def weights(own: Tensors, learned: Tensors) -> dict[str, Tensor]:
    """Return the weight with shifted singular values.

    Built as W + U diag(relu(S + d) - S) V^T, so that rounding leaves the base alone at d = 0.
    """
    weight, shift = own["weight"], learned["shift"]
    if weight.dim() == 1:
        return {"weight": weight + shift}
    values = learned["S"]
    moved = (values + shift).relu() - values
    change = (learned["U"] * moved) @ learned["Vh"]
    return {"weight": weight + change.view_as(weight)}


def starts(
    modules: Sequence[Any], settings: StartSettings, generator: torch.Generator
) -> Iterator[Start]:
    """Yield d = 0 for each module; the singular vectors are the base's and are not saved."""
    return (_start(module.weight) for module in modules)


def _start(weight: Tensor) -> Start:
    import torch

    if weight.dim() == 1:
        shift = torch.zeros_like(weight, dtype=torch.float32)
        return Start({"shift": shift}, rate=VECTOR_RATE)
    if weight.is_meta:
        rows, columns = weight.flatten(1).shape
        rank = min(rows, columns)
        u, s, vh = (torch.empty(size, device="meta") for size in
                    ((rows, rank), (rank,), (rank, columns)))  # fmt: skip
    else:
        u, s, vh = torch.linalg.svd(weight.detach().flatten(1).float(), full_matrices=False)
    return Start({"shift": torch.zeros_like(s)}, derived={"U": u, "S": s, "Vh": vh})


SVDIFF = Method(
    name="svdiff",
    about="",
    starts=starts,
    weights=weights,
    reach="matrices",
    steps=by_family(sdxl=1600),
    settings={"train": {"optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01}}},
)
