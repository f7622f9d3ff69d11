"""GSOFT: rotations that mix all features, from two shuffled block-diagonal ones.

    gsoft:         W' = diag(s) W Q_V
    gsoft_double:  W' = diag(s) Q_U W Q_V,   Q = P^T L P R

L and R have b blocks, Cayley transforms of the skew parts of what is trained; P shuffles. At the
start s = 1 and Q = I. Q alone keeps the singular values. Gorbunov et al. 2024, "Group and Shuffle:
Efficient Structured Orthogonal Parametrization".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tlora_cli.methods.rotations import (
    cayley,
    shuffle_rows,
    skew_part,
    turn_rows,
    unshuffle_rows,
)
from tlora_cli.methods.spec import Method, Start, StartSettings, Tensors, by_family

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def rotate(left: Tensor, right: Tensor, matrix: Tensor) -> Tensor:
    """Return Q @ matrix.

    Args:
        left: (b, k, k), of whose blocks only the skew parts count, as published.
        right: likewise.
        matrix: (b * k, m).
    """
    first = turn_rows(cayley(skew_part(right)), matrix)
    second = turn_rows(cayley(skew_part(left)), shuffle_rows(first, len(left)))
    return unshuffle_rows(second, len(left))


def rotate_back(left: Tensor, right: Tensor, matrix: Tensor) -> Tensor:
    """Return Q^T @ matrix."""
    first = turn_rows(cayley(skew_part(left)).mT, shuffle_rows(matrix, len(left)))
    return turn_rows(cayley(skew_part(right)).mT, unshuffle_rows(first, len(left)))


def weights(own: Tensors, learned: Tensors) -> dict[str, Tensor]:
    """Return the rotated and scaled weight."""
    turned = rotate_back(learned["V.L"], learned["V.R"], own["weight"].T).T
    if "U.L" in learned:
        turned = rotate(learned["U.L"], learned["U.R"], turned)
    return {"weight": learned["scale"][:, None] * turned}


def starts(
    layers: Sequence[Any], settings: StartSettings, generator: torch.Generator
) -> Iterator[Start]:
    """Yield s = 1 and Q_V = I for each layer."""
    return (_start(layer, settings.blocks, V=layer.in_features) for layer in layers)


def double_starts(
    layers: Sequence[Any], settings: StartSettings, generator: torch.Generator
) -> Iterator[Start]:
    """Yield s = 1, Q_V = I and Q_U = I for each layer."""
    return (
        _start(layer, settings.blocks, V=layer.in_features, U=layer.out_features)
        for layer in layers
    )


def _start(layer: Any, blocks: int, **features: int) -> Start:
    """Return a scale, and L and R of rotations of so many features."""
    import torch

    trained = {"scale": torch.ones(layer.out_features)}
    for name, count in features.items():
        size = count // blocks
        trained |= {f"{name}.{part}": torch.zeros(blocks, size, size) for part in ("L", "R")}
    return Start(trained)


GSOFT = Method(
    name="gsoft",
    about="",
    starts=starts,
    weights=weights,
    divides=("in_features",),
    steps=by_family(sdxl=800),
)
GSOFT_DOUBLE = replace(
    GSOFT, name="gsoft_double", starts=double_starts, divides=("out_features", "in_features")
)
