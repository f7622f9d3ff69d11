"""Inputs of the denoisers: random pictures and texts of the shapes of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tlora_cli.families import FAMILIES, LatentDistribution
from tlora_cli.families.shapes import like_of, random_conditioning
from tlora_cli.training.batch import Example

SIDE = 128
"""Side of the latent of a picture of 1024 pixels."""


def example(family: str, denoiser: Any, side: int, tokens: int | None = None) -> Example:
    """Return a random training picture, encoded."""
    shape, device = (
        (FAMILIES[family].latent_channels(denoiser), side, side),
        like_of(denoiser).device,
    )
    latent = LatentDistribution(
        torch.randn(shape, device=device), torch.full(shape, 0.01, device=device)
    )
    return Example(latent, random_conditioning(family, denoiser, 1, tokens))


def denoiser_call(
    family: str,
    denoiser: Any,
    *,
    side: int = SIDE,
    batch: int = 1,
    tokens: int | None = None,
    needs_grad: bool = False,
) -> Callable[..., Tensor]:
    """Return what calls the denoiser on random inputs, on its device and in its number format.

    It takes a timestep, 500 if none is given.

    Args:
        family: of the denoiser.
        denoiser: the denoiser.
        side: of the latent.
        batch: samples.
        tokens: of the text; default the family's.
        needs_grad: whether the noisy latent takes a gradient.
    """
    like = like_of(denoiser)
    noisy = torch.randn(
        batch,
        FAMILIES[family].latent_channels(denoiser),
        side,
        side,
        device=like.device,
        dtype=like.dtype,
        requires_grad=needs_grad,
    )
    told = random_conditioning(family, denoiser, batch, tokens)

    def call(t: float = 500.0) -> Tensor:
        timestep = torch.full((batch,), t, device=like.device)
        return FAMILIES[family].predict(denoiser, noisy, timestep, told, guidance=1.0)

    return call
