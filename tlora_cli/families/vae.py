"""Pictures through an image VAE of diffusers, there and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tlora_cli.families.facts import LatentDistribution
from tlora_cli.families.vae_config import factor_of

Scale = Callable[[Any, Tensor], tuple[Any, Any]]
"""A VAE and latents of it -> what is taken from these, and what they are then multiplied with."""

DECODED_PIXELS = 1024 * 1024
"""Most pixels that are decoded at once."""


def latent_scale(vae: Any, like: Tensor) -> tuple[Any, Any]:
    """Return what is taken from the VAE's latents, and what they are then multiplied with.

    A VAE says one number for all channels, or a mean and a standard deviation for each of them
    (as Playground v2.5's does); its scaling factor is then what they are scaled to.
    """
    config = vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or std is None:
        return config.shift_factor or 0.0, config.scaling_factor
    shape = (1, -1, 1, 1)
    factor = getattr(config, "scaling_factor", 1.0)
    return like.new_tensor(mean).view(shape), factor / like.new_tensor(std).view(shape)


@torch.no_grad()
def encode_image(
    vae: Any, pixels: Tensor, scale_of: Scale = latent_scale, frames: bool = False
) -> LatentDistribution:
    """Return the latent distribution of one picture (3, H, W) in [-1, 1].

    Args:
        vae: of the base.
        pixels: the picture.
        scale_of: says the scale of its latents.
        frames: whether the VAE takes films.
    """
    given = framed(pixels.unsqueeze(0).to(vae.device, vae.dtype), frames)
    moments = vae.encode(given).latent_dist
    mean, std = (x[:, :, 0] if frames else x for x in (moments.mean, moments.std))
    shift, scale = scale_of(vae, mean)
    return LatentDistribution(((mean - shift) * scale)[0].float(), (std * scale)[0].float())


def framed(pictures: Tensor, frames: bool) -> Tensor:
    """Return pictures or latents (B, C, h, w) as a VAE of films takes them, if it is one."""
    return pictures.unsqueeze(2) if frames else pictures


@torch.no_grad()
def decode(
    vae: Any, latents: Tensor, scale_of: Scale = latent_scale, frames: bool = False
) -> list[Image.Image]:
    """Return pictures of latents (B, C, h, w) in the denoiser's scale.

    As many are decoded at once as take no more memory than one of 1024 x 1024 pixels: in fp32 at
    that size the VAE is what needs most.

    Args:
        vae: of the base.
        latents: of the pictures.
        scale_of: says the scale of the VAE's latents.
        frames: whether the VAE takes films.
    """
    placed = latents.to(vae.device, vae.dtype)
    shift, scale = scale_of(vae, placed)
    unscaled = placed / scale + shift
    height, width = latents.shape[-2:]
    factor = factor_of(vae.config)
    at_once = max(1, DECODED_PIXELS // (height * width * factor**2))
    pictures = []
    for some in unscaled.split(at_once):
        found = vae.decode(framed(some, frames), return_dict=False)[0]
        pixels = (found[:, :, 0] if frames else found).float()
        levels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().byte()
        pictures += [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in levels.cpu()]
    return pictures
