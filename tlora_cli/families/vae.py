"""Pictures through an image VAE of diffusers, there and back."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tlora_cli.families.facts import LatentDistribution

DECODED_PIXELS = 1024 * 1024
"""Most pixels that are decoded at once."""


@torch.no_grad()
def encode_image(vae: Any, pixels: Tensor) -> LatentDistribution:
    """Return the latent distribution of one picture (3, H, W) in [-1, 1]."""
    moments = vae.encode(pixels.unsqueeze(0).to(vae.device, vae.dtype)).latent_dist
    shift = vae.config.shift_factor or 0.0
    scale = vae.config.scaling_factor
    return LatentDistribution(
        ((moments.mean - shift) * scale)[0].float(), (moments.std * scale)[0].float()
    )


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> list[Image.Image]:
    """Return pictures of latents (B, C, h, w) in the denoiser's scale.

    As many are decoded at once as take no more memory than one of 1024 x 1024 pixels: in fp32 at
    that size the VAE is what needs most.
    """
    shift = vae.config.shift_factor or 0.0
    unscaled = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor + shift
    height, width = latents.shape[-2:]
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    at_once = max(1, DECODED_PIXELS // (height * width * factor**2))
    pictures = []
    for some in unscaled.split(at_once):
        pixels = vae.decode(some, return_dict=False)[0].float()
        levels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().byte()
        pictures += [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in levels.cpu()]
    return pictures
