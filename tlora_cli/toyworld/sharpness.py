"""Two measures that tell smeared pictures from sharp ones, which reading them does not."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

PATCH = 8
"""Side of a patch in pixels."""
PATCHES = 20_000
"""Patches of each set of pictures."""


def laplacian(pixels: Tensor) -> float:
    """Return the mean square of the Laplacian of the grey pictures, in [0, 1] brightness.

    Blur takes it away, noise adds to it.

    Args:
        pixels: (B, 3, H, W) in [-1, 1].
    """
    grey = (pixels.float() + 1).mean(1, keepdim=True) / 2
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], device=grey.device)
    return float(functional.conv2d(grey, kernel[None, None]).square().mean())


def patch_distance(one: Tensor, other: Tensor, count: int = PATCHES, seed: int = 0) -> float:
    """Return the Frechet distance of random patches of two sets of pictures.

    Patches of 8 x 8 pixels are taken as vectors of 192 numbers in [0, 1], each set as a Gaussian.

    Args:
        one: (B, 3, H, W) in [-1, 1].
        other: the same, to compare it with.
        count: patches of each set.
        seed: of their places.
    """
    generator = torch.Generator().manual_seed(seed)
    return frechet_distance(
        _patches(one, count, generator).numpy(), _patches(other, count, generator).numpy()
    )


def _patches(pixels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return (count, 192) in float64, in [0, 1]."""
    height, width = pixels.shape[-2:]
    which = torch.randint(len(pixels), (count,), generator=generator)
    top = torch.randint(height - PATCH + 1, (count,), generator=generator)
    left = torch.randint(width - PATCH + 1, (count,), generator=generator)
    steps = torch.arange(PATCH)
    rows, columns = (top[:, None] + steps)[:, :, None], (left[:, None] + steps)[:, None]
    found = pixels.cpu()[which[:, None, None], :, rows, columns]
    return (found.flatten(1).double() + 1) / 2


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the Frechet distance of two sets of vectors, each taken as a Gaussian.

    Args:
        one: (N, D).
        other: (M, D).
    """
    shift = one.mean(0) - other.mean(0)
    first, second = np.cov(one.T), np.cov(other.T)
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ second @ root).clip(0)
    return float(shift @ shift + np.trace(first) + np.trace(second) - 2 * np.sqrt(mixed).sum())
