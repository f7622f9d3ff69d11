"""Random inputs for the denoisers, of the shapes of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tlora_cli.families import FAMILIES

SIDE = 128
"""Of the latent of a picture of 1024 pixels."""
TEXT_TOKENS = {"sdxl": 77, "flux": 512}


def conditioning(
    family: str, denoiser: Any, batch: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return random text, of the widths that the denoiser takes, and SDXL's sizes."""
    config = denoiser.config

    def draw(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, device=device, dtype=dtype)

    if family == "sdxl":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        return {
            "prompt_embeds": draw(TEXT_TOKENS[family], config.cross_attention_dim),
            "text_embeds": draw(pooled),
            "time_ids": torch.full((batch, 6), 1024.0, device=device),
        }
    return {
        "prompt_embeds": draw(TEXT_TOKENS[family], config.joint_attention_dim),
        "pooled_projections": draw(config.pooled_projection_dim),
    }


def denoiser_call(
    family: str,
    denoiser: Any,
    *,
    side: int | None = None,
    batch: int = 1,
    t: float = 500.0,
    needs_grad: bool = False,
) -> Callable[[], Tensor]:
    """Return what calls the denoiser on random inputs, on its device and in its number format.

    Args:
        family: of the denoiser.
        denoiser: the denoiser.
        side: of the latent; default that of 1024 pixels.
        batch: samples.
        t: timestep, 0..1000.
        needs_grad: whether the noisy latent takes a gradient.
    """
    first = next(p for p in denoiser.parameters() if p.is_floating_point())
    device, dtype = first.device, first.dtype
    channels = denoiser.config.in_channels // (4 if family == "flux" else 1)
    side = side or SIDE
    noisy = torch.randn(
        batch, channels, side, side, device=device, dtype=dtype, requires_grad=needs_grad
    )
    told = conditioning(family, denoiser, batch, device, dtype)
    timestep = torch.full((batch,), t, device=device)
    return lambda: FAMILIES[family].predict(denoiser, noisy, timestep, told, guidance=1.0)
