"""Damaged pictures for the strict judge: kinds it learns from, and kinds it is only tested on.

A kind makes of drawings (B, 3, 64, 64) in [-1, 1] pictures that nobody should count as right,
whatever can be guessed of them. `TRAINED` and `UNSEEN` share no kind. Two more kinds, noisy latents
and early samples, need models; `pools.py` makes them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Kind = Callable[[Tensor, torch.Generator], Tensor]


def _uniform(pixels: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Return a number for each picture, (B, 1, 1, 1)."""
    drawn = torch.rand(len(pixels), 1, 1, 1, generator=generator)
    return (low + drawn * (high - low)).to(pixels)


def softened(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return readable pictures as a base might draw them: a little noisy, soft, off in tone."""
    soft = functional.avg_pool2d(functional.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pixels = torch.lerp(pixels, soft, _uniform(pixels, 0, 0.6, generator))
    noise = torch.randn(pixels.shape, generator=generator).to(pixels)
    pixels = pixels * _uniform(pixels, 0.92, 1.06, generator)
    pixels = pixels + _uniform(pixels, -0.05, 0.05, generator)
    return (pixels + noise * _uniform(pixels, 0, 0.1, generator)).clamp(-1, 1)


def blurred(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return each picture with a blur of 1.8 to 4 pixels."""
    at = torch.arange(-8, 9).to(pixels)
    wide = _uniform(pixels, 1.8, 4, generator).flatten()
    kernel = torch.exp(-0.5 * (at[None] / wide[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    flat = functional.pad(pixels, (8,) * 4, mode="reflect").flatten(0, 1)[None]
    flat = functional.conv2d(flat, kernel[:, None, None], groups=len(kernel))
    flat = functional.conv2d(flat, kernel[:, None, :, None], groups=len(kernel))
    return flat.view_as(pixels)


def blended(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return blends of two pictures, even or by patches with soft edges."""
    share = _uniform(pixels, 0.35, 0.65, generator)
    coarse = torch.randn(len(pixels), 1, 5, 5, generator=generator).to(pixels)
    mask = functional.interpolate(coarse, pixels.shape[-2:], mode="bicubic", align_corners=False)
    even = _uniform(pixels, 0, 1, generator) < 0.5
    return torch.lerp(pixels, pixels.roll(1, 0), torch.where(even, share, (4 * mask).sigmoid()))


def warped(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures as if seen through moving water: offsets of about 4 pixels."""
    count, size = len(pixels), pixels.shape[-1]
    coarse = torch.randn(count, 2, 7, 7, generator=generator).to(pixels)
    coarse = coarse * _uniform(pixels, 0.11, 0.2, generator)
    offsets = functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
    grid = functional.affine_grid(torch.eye(2, 3).expand(count, 2, 3), [count, 3, size, size],
                                  align_corners=False).to(pixels)  # fmt: skip
    grid = grid + offsets.permute(0, 2, 3, 1)
    return functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def shuffled(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures whose tiles of 16 pixels have changed places."""
    tiles = functional.unfold(pixels, 16, stride=16)
    orders = torch.rand(len(pixels), 1, tiles.shape[2], generator=generator).argsort(2)
    tiles = tiles.gather(2, orders.to(pixels.device).expand_as(tiles))
    return functional.fold(tiles, (64, 64), 16, stride=16)


def halved(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures of two halves, left and right, of which one is of another picture, mirrored.

    Both are cut at a column near the middle of the picture; mirrored, so that they do not fit.
    """
    cut = _uniform(pixels, 26, 38, generator)
    column = torch.arange(pixels.shape[-1]).to(pixels)
    return torch.where(column < cut, pixels, pixels.roll(1, 0).flip(2))


def mosaic(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures in squares of one color, 8 pixels wide."""
    del generator
    return functional.interpolate(functional.avg_pool2d(pixels, 8), scale_factor=8)


def median(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return each pixel as the median of the 9 x 9 around it."""
    del generator
    around = functional.unfold(functional.pad(pixels, (4,) * 4, mode="reflect"), 9)
    return around.unflatten(1, (3, 81)).median(2).values.view_as(pixels)


def grainy(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures under noise of 0.8 to 1.5 of full contrast."""
    noise = torch.randn(pixels.shape, generator=generator).to(pixels)
    return (pixels + noise * _uniform(pixels, 0.8, 1.5, generator)).clamp(-1, 1)


TRAINED: dict[str, Kind] = {"blur": blurred, "blend": blended, "warp": warped}
UNSEEN: dict[str, Kind] = {
    "shuffled tiles": shuffled,
    "two halves": halved,
    "mosaic": mosaic,
    "median": median,
    "grain": grainy,
}
