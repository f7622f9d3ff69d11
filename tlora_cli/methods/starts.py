"""Singular triplets to start from, of random matrices or of the layers' weights (`tlora.STARTS`).

Random starts are drawn without a decomposition. For R with independent normal entries, U, S and V
are independent, U and V are Haar distributed, and S has the law of the singular values of a
bidiagonal matrix of chi variables (Dumitriu and Edelman 2002, "Matrix models for beta ensembles").
So the factors are the Q of thin normal matrices with the sign fix of Mezzadri (2007, "How to
generate random matrices from the classical compact groups"), and S comes from the bidiagonal
matrix. All layers of one shape are drawn at once. The published code decomposes every layer's
random matrix in full and, for layers with more inputs than outputs, takes rows that depend on how
LAPACK completes U; here the law is Haar.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tlora_cli.foundation.errors import UserError

AT_ONCE = 64
"""Matrices of one shape that are worked on together, for the memory's sake."""
THIN = 4
"""Rows a column from which on a normal matrix is so far from singular (the condition number is
about 3) that its QR can be had from the Cholesky factor of its Gram matrix."""

Triplets = tuple[Tensor, Tensor, Tensor]
"""A0 (r, in) with orthonormal rows, S0 (r,) descending, B0 (out, r) with orthonormal columns."""


def draw_starts(
    layers: Sequence[nn.Linear], rank: int, start: str, generator: torch.Generator, std: float
) -> list[Triplets]:
    """Return the triplets of a start, a function of the generator and of the layers' shapes.

    Args:
        layers: the linear layers; a random start reads only their shapes.
        rank: r.
        start: a name of `tlora.STARTS`.
        generator: CPU generator of the random starts.
        std: standard deviation of the random matrix.

    Raises:
        UserError: if the start needs the weights and they are quantized.
    """
    source, place = start.split("_")
    if source == "weights":
        return [_weights_start(layer, rank, start) for layer in layers]
    found: dict[int, Triplets] = {}
    shapes = [(layer.out_features, layer.in_features, layer.weight.is_meta) for layer in layers]
    for shape in dict.fromkeys(shapes):
        out_features, in_features, is_meta = shape
        if is_meta:  # nothing is computed on the meta device: shapes are enough
            empty = _empty(out_features, in_features, rank)
            found.update((i, empty) for i, own in enumerate(shapes) if own == shape)
            continue
        places = [i for i, own in enumerate(shapes) if own == shape]
        values = random_singular_values(
            len(places), out_features, in_features, rank, place, std, generator
        )
        for first in range(0, len(places), AT_ONCE):
            some = places[first : first + AT_ONCE]
            downs = haar_frames(len(some), in_features, rank, generator).mT.contiguous()
            ups = haar_frames(len(some), out_features, rank, generator)
            for n, i in enumerate(some):  # copies: a layer must not hold the memory of the others
                found[i] = downs[n].clone(), values[first + n].clone(), ups[n].clone()
    return [found[i] for i in range(len(layers))]


def _empty(out_features: int, in_features: int, rank: int) -> Triplets:
    return (
        torch.empty(rank, in_features, device="meta"),
        torch.empty(rank, device="meta"),
        torch.empty(out_features, rank, device="meta"),
    )


def first_index(size: int, rank: int, place: str) -> int:
    """Index of the first chosen singular value among `size` in descending order."""
    return {"principal": 0, "middle": math.ceil((size - rank) / 2), "last": size - rank}[place]


def haar_frames(count: int, size: int, rank: int, generator: torch.Generator) -> Tensor:
    """Return (count, size, rank): orthonormal columns, uniform over all frames.

    The Q of normal matrices, with the R that has a positive diagonal (Mezzadri, eq. 5.12).
    """
    normal = torch.randn(count, size, rank, generator=generator)
    exact = normal.double()
    if size < THIN * rank:
        q, r = torch.linalg.qr(exact)
        columns: Tensor = q * r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)
        return columns.float()
    # X^T X = R^T R, so Q = X R^-1; a Cholesky factor has a positive diagonal.
    root = torch.linalg.cholesky(exact.mT @ exact, upper=True)
    inverse: Tensor = torch.linalg.inv(root)
    return normal @ inverse.float()


def random_singular_values(
    count: int,
    rows: int,
    columns: int,
    rank: int,
    place: str,
    std: float,
    generator: torch.Generator,
) -> Tensor:
    """Return (count, rank): singular values, descending, of rows x columns N(0, std) matrices.

    B has chi_m, chi_{m-1}, ... on the diagonal and chi_{n-1}, ..., chi_1 beside it (m >= n); the
    values are the roots of the eigenvalues of the tridiagonal B^T B.
    """
    n, m = sorted((rows, columns))
    seed = int(torch.randint(2**62, (1,), generator=generator))
    chance = np.random.Generator(np.random.PCG64(seed))
    diagonal = np.sqrt(chance.chisquare(np.arange(m, m - n, -1), (count, n))).T
    beside = np.sqrt(chance.chisquare(np.arange(n - 1, 0, -1), (count, n - 1))).T
    squares = diagonal**2
    squares[1:] += beside**2
    products = (diagonal[:-1] * beside) ** 2
    chosen = n - 1 - first_index(n, rank, place) - np.arange(rank)  # counted from the smallest
    values = _roots_of_eigenvalues(
        torch.from_numpy(squares).contiguous(),
        torch.from_numpy(products).contiguous(),
        torch.from_numpy(chosen),
        math.sqrt(m) + math.sqrt(n),
    )
    return (std * values).T.float().contiguous()


def _roots_of_eigenvalues(diagonal: Tensor, beside: Tensor, chosen: Tensor, top: float) -> Tensor:
    """Return roots of eigenvalues of positive definite tridiagonal matrices, by bisection.

    The eigenvalues below x^2 are as many as the negative pivots of T - x^2 (Sylvester's law of
    inertia). Bisection halves all intervals of all matrices in one pass over the pivots.

    Args:
        diagonal: (n, count), float64.
        beside: (n - 1, count), squares of what lies beside the diagonal.
        chosen: (k,), which eigenvalues, counted from the smallest from 0.
        top: about the largest root.

    Returns:
        (k, count).
    """
    wanted = chosen.unsqueeze(1)
    low = torch.zeros(1, diagonal.shape[1], dtype=torch.float64)
    high = torch.full_like(low, 1.5 * top)
    while not (_below(diagonal, beside, high) == len(diagonal)).all():
        high *= 2
    # Two passes with all points spread over the range of all values; each is worth several that
    # halve every interval.
    shares = torch.linspace(0, 1, len(chosen) + 1, dtype=torch.float64).unsqueeze(1)
    for _ in range(2):
        bottom, top_most = low.amin(0), high.amax(0)
        points = torch.lerp(bottom, top_most, shares)
        points[-1] = top_most
        below = _below(diagonal, beside, points[1:-1])
        passed = (below <= wanted.unsqueeze(1)).sum(1)
        low, high = points.gather(0, passed), points.gather(0, passed + 1)
    fine = torch.finfo(torch.float32).eps / 2
    while not (high - low <= fine * torch.clamp(high, min=1e-3)).all():
        middle = (low + high) / 2
        reached = _below(diagonal, beside, middle) > wanted
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return (low + high) / 2


def _below(diagonal: Tensor, beside: Tensor, x: Tensor) -> Tensor:
    """Return how many eigenvalues of each matrix lie below x^2, (k, count) for x (k, count)."""
    square = x**2
    pivot = diagonal[0] - square
    negative = pivot < 0
    some = negative.to(torch.int8)  # counted in bytes, which is faster, and collected now and then
    count, one = torch.zeros_like(some, dtype=torch.int32), negative.view(torch.int8)
    for row, (entry, product) in enumerate(zip(diagonal[1:], beside, strict=True)):
        torch.addcdiv(entry, product, pivot, value=-1, out=pivot)  # 1 / 0 is infinite: correct
        pivot -= square
        torch.lt(pivot, 0, out=negative)
        some += one
        if row % 100 == 99:
            count += some
            some.zero_()
    return count + some


def _weights_start(layer: nn.Linear, rank: int, start: str) -> Triplets:
    if layer.weight.is_meta:
        return _empty(layer.out_features, layer.in_features, rank)
    if not layer.weight.is_floating_point():
        raise UserError(
            f"init {start} decomposes the base weights, which are quantized",
            where="adapter.init",
            do="use a random start, or drop train.quantization",
        )
    weight = layer.weight.detach().float()
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    first = first_index(len(s), rank, start.split("_")[1])
    chosen = slice(first, first + rank)
    return vh[chosen].contiguous().cpu(), s[chosen].clone().cpu(), u[:, chosen].contiguous().cpu()
