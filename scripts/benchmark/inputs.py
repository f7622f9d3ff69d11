"""What the denoisers work on: random pictures and texts of the shapes of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tlora_cli.families import FAMILIES, LatentDistribution
from tlora_cli.training.step import Example

SIDE = 128
"""Of the latent of a picture of 1024 pixels."""
TEXT_TOKENS = {"sdxl": 77, "flux": 512}


def latent_channels(family: str, denoiser: Any) -> int:
    """Return the channels of a latent; FLUX's denoiser takes patches of 2 x 2."""
    channels: int = denoiser.config.in_channels
    return channels // 4 if family == "flux" else channels


def conditioning(
    family: str, denoiser: Any, batch: int, tokens: int | None = None
) -> dict[str, Tensor]:
    """Return random text, of the widths that the denoiser takes, and SDXL's sizes."""
    config, like = denoiser.config, _like(denoiser)
    tokens = tokens or TEXT_TOKENS[family]

    def draw(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, device=like.device, dtype=like.dtype)

    if family == "sdxl":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        return {
            "prompt_embeds": draw(tokens, config.cross_attention_dim),
            "text_embeds": draw(pooled),
            "time_ids": torch.full((batch, 6), 1024.0, device=like.device),
        }
    return {
        "prompt_embeds": draw(tokens, config.joint_attention_dim),
        "pooled_projections": draw(config.pooled_projection_dim),
    }


def example(family: str, denoiser: Any, side: int, tokens: int | None = None) -> Example:
    """Return a random training picture, encoded."""
    shape, device = (latent_channels(family, denoiser), side, side), _like(denoiser).device
    latent = LatentDistribution(
        torch.randn(shape, device=device), torch.full(shape, 0.01, device=device)
    )
    return Example(latent, conditioning(family, denoiser, 1, tokens))


def denoiser_call(
    family: str,
    denoiser: Any,
    *,
    side: int = SIDE,
    batch: int = 1,
    tokens: int | None = None,
    needs_grad: bool = False,
) -> Callable[[], Tensor]:
    """Return what calls the denoiser on random inputs, on its device and in its number format.

    Args:
        family: of the denoiser.
        denoiser: the denoiser.
        side: of the latent.
        batch: samples.
        tokens: of the text; default the family's.
        needs_grad: whether the noisy latent takes a gradient.
    """
    like = _like(denoiser)
    noisy = torch.randn(
        batch,
        latent_channels(family, denoiser),
        side,
        side,
        device=like.device,
        dtype=like.dtype,
        requires_grad=needs_grad,
    )
    told = conditioning(family, denoiser, batch, tokens)
    timestep = torch.full((batch,), 500.0, device=like.device)
    return lambda: FAMILIES[family].predict(denoiser, noisy, timestep, told, guidance=1.0)


def _like(denoiser: Any) -> Tensor:
    return next(p for p in denoiser.parameters() if p.is_floating_point())
