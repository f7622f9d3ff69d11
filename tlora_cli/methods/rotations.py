"""Orthogonal matrices made of small blocks, for OFT and GSOFT."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def skew_from_entries(entries: Tensor, size: int) -> Tensor:
    """Return skew-symmetric blocks (b, size, size) from those above the diagonal.

    Args:
        entries: (b, size * (size - 1) / 2), row by row.
        size: of a block.
    """
    import torch

    rows, columns = torch.triu_indices(size, size, 1, device=entries.device)
    upper = entries.new_zeros(len(entries), size, size)
    upper = upper.index_put((torch.arange(len(entries), device=entries.device)[:, None],
                             rows[None], columns[None]), entries)  # fmt: skip
    return upper - upper.mT


def skew_part(blocks: Tensor) -> Tensor:
    """Return (M - M^T) / 2 of each block (b, k, k)."""
    return (blocks - blocks.mT) / 2


def cayley(skew: Tensor) -> Tensor:
    """Return the rotations (I + S)(I - S)^-1 of skew-symmetric blocks (b, k, k)."""
    import torch

    one = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    rotations: Tensor = torch.linalg.solve(one - skew, one + skew, left=False)
    return rotations


def cayley_neumann(skew: Tensor) -> Tensor:
    """Return I + 2S + 2S^2 + 2S^3 + S^4: the Cayley transform with (I - S)^-1 cut off.

    This is OFTv2's form (Qiu et al. 2025), as PEFT has it by default; a rotation only nearly.
    """
    import torch

    one = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    square = skew @ skew
    return one + 2 * skew + 2 * square + 2 * square @ skew + square @ square


def turn_rows(blocks: Tensor, matrix: Tensor) -> Tensor:
    """Return blockdiag(blocks) @ matrix.

    Args:
        blocks: (b, k, k).
        matrix: (b * k, m).
    """
    groups = matrix.reshape(len(blocks), -1, matrix.shape[1])
    return (blocks @ groups).flatten(0, 1)


def shuffle_rows(matrix: Tensor, groups: int) -> Tensor:
    """Return P @ matrix: row g + groups * i goes to place i of group g."""
    return matrix.reshape(-1, groups, matrix.shape[1]).transpose(0, 1).flatten(0, 1)


def unshuffle_rows(matrix: Tensor, groups: int) -> Tensor:
    """Return P^T @ matrix, the way back."""
    return matrix.reshape(groups, -1, matrix.shape[1]).transpose(0, 1).flatten(0, 1)
