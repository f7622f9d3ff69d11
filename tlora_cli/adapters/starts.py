"""The six starts of the ortho family: which r singular triplets, and of which matrix.

Random starts are drawn without a decomposition. For R with independent normal entries, U, S and V
are independent, U and V are Haar distributed, and S has the law of the singular values of a
bidiagonal matrix of chi variables (Dumitriu and Edelman 2002, "Matrix models for beta ensembles").
So the factors are the Q of thin normal matrices with the sign fix of Mezzadri (2007, "How to
generate random matrices from the classical compact groups"), and S comes from the bidiagonal
matrix. The published code decomposes every layer's random matrix in full and, for layers with
more inputs than outputs, takes rows that depend on how LAPACK completes U; here the law is Haar.
"""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import torch
from scipy.linalg import eigvalsh_tridiagonal
from torch import Tensor, nn

from tlora_cli.errors import UserError
from tlora_cli.recipe_base import InitName

STARTS: tuple[str, ...] = get_args(InitName)
"""{random, weights}_{principal, middle, last}."""

Triplets = tuple[Tensor, Tensor, Tensor]
"""A0 (r, in) with orthonormal rows, S0 (r,) descending, B0 (out, r) with orthonormal columns."""


def draw_start(
    layer: nn.Linear, rank: int, start: str, generator: torch.Generator, std: float
) -> Triplets:
    """Return the triplets of a start.

    Args:
        layer: the linear layer; a random start reads only its shape.
        rank: r.
        start: a name of `STARTS`.
        generator: CPU generator of the random starts.
        std: standard deviation of the random matrix.

    Raises:
        UserError: if the start needs the weights and they are quantized.
    """
    source, place = start.split("_")
    out_features, in_features = layer.out_features, layer.in_features
    if layer.weight.is_meta:  # nothing is computed on the meta device: shapes are enough
        return (
            torch.empty(rank, in_features, device="meta"),
            torch.empty(rank, device="meta"),
            torch.empty(out_features, rank, device="meta"),
        )
    if source == "weights":
        if not layer.weight.is_floating_point():
            raise UserError(
                f"init {start} decomposes the base weights, which are quantized",
                where="adapter.init",
                do="use a random start, or drop train.quantization",
            )
        return _weights_start(layer.weight, rank, place)
    return (
        haar_columns(in_features, rank, generator).T.contiguous(),
        random_singular_values(out_features, in_features, rank, place, std, generator),
        haar_columns(out_features, rank, generator),
    )


def first_index(size: int, rank: int, place: str) -> int:
    """Index of the first chosen singular value among `size` in descending order."""
    return {"principal": 0, "middle": math.ceil((size - rank) / 2), "last": size - rank}[place]


def haar_columns(size: int, rank: int, generator: torch.Generator) -> Tensor:
    """Return (size, rank) orthonormal columns, uniform over all frames (Mezzadri, eq. 5.12)."""
    q, r = torch.linalg.qr(torch.randn(size, rank, generator=generator, dtype=torch.float64))
    columns: Tensor = q * r.diagonal().sign()
    return columns.float()


def random_singular_values(
    rows: int, columns: int, rank: int, place: str, std: float, generator: torch.Generator
) -> Tensor:
    """Return `rank` singular values (descending) of a rows x columns N(0, std) matrix.

    B has chi_m, chi_{m-1}, ... on the diagonal and chi_{n-1}, ..., chi_1 beside it (m >= n); the
    values are the roots of the eigenvalues of the tridiagonal B^T B.
    """
    n, m = sorted((rows, columns))
    seed = int(torch.randint(2**62, (1,), generator=generator))
    chance = np.random.Generator(np.random.PCG64(seed))
    diagonal = np.sqrt(chance.chisquare(np.arange(m, m - n, -1)))
    beside = np.sqrt(chance.chisquare(np.arange(n - 1, 0, -1))) if n > 1 else np.empty(0)
    squares = diagonal**2
    squares[1:] += beside**2
    first = n - rank - first_index(n, rank, place)  # eigenvalues come in ascending order
    values = eigvalsh_tridiagonal(
        squares, diagonal[:-1] * beside, select="i", select_range=(first, first + rank - 1)
    )
    return torch.from_numpy(std * np.sqrt(np.clip(values, 0, None))[::-1].copy()).float()


def _weights_start(weight: Tensor, rank: int, place: str) -> Triplets:
    u, s, vh = torch.linalg.svd(weight.detach().float(), full_matrices=False)
    first = first_index(len(s), rank, place)
    chosen = slice(first, first + rank)
    return vh[chosen].contiguous().cpu(), s[chosen].clone().cpu(), u[:, chosen].contiguous().cpu()
