"""Tiny VAEs whose latents and pictures have a natural spread."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
)

from tlora_cli.families.vae import framed
from tlora_cli.families.vae_config import channels_of

VAE_LAYERS: dict[str, Any] = {
    "block_out_channels": (8, 16, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 64,
}
VAE = TypeVar(
    "VAE", AutoencoderKL, AutoencoderKLFlux2, AutoencoderKLQwenImage, AutoencoderKLQwenImage21
)


def kl_vae(latent_channels: int, **options: Any) -> AutoencoderKL:
    """Make a VAE of factor 8 whose latents and pictures have a natural spread."""
    vae = AutoencoderKL(latent_channels=latent_channels, **VAE_LAYERS, **options).eval()
    return _spread(vae, vae.config.shift_factor or 0.0, vae.config.scaling_factor)


def vae_of_flux() -> AutoencoderKL:
    """Make FLUX.1's, which other families have as well."""
    return kl_vae(
        16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def vae_with_norm() -> AutoencoderKLFlux2:
    """Make FLUX.2's, whose batch norm has a mean and a variance for each channel of a patch."""
    vae = AutoencoderKLFlux2(latent_channels=32, **VAE_LAYERS).eval()
    with torch.no_grad():
        vae.bn.running_mean.copy_(0.3 * torch.randn(vae.bn.num_features))
        vae.bn.running_var.copy_(2.0 + torch.rand(vae.bn.num_features))
    return _spread(vae, 0.0, 0.6)


def vae_of_films() -> AutoencoderKLQwenImage:
    """Make Qwen-Image's, with its own means and deviations for each channel."""
    return spread_films(AutoencoderKLQwenImage(base_dim=4, num_res_blocks=1))


def spread_films(vae: VAE) -> VAE:
    """Give a VAE of films a spread by its own means and deviations for each channel."""
    vae = vae.eval()
    mean, std = (torch.tensor(vae.config[f"latents_{name}"]) for name in ("mean", "std"))
    return _spread(vae, mean, 1 / std)


def _spread(vae: VAE, shift: float | torch.Tensor, scale: float | torch.Tensor) -> VAE:
    """Give a VAE's latents and pictures a natural spread.

    Its random layers give nearly constant outputs and a posterior that is all noise, so the last
    layer of each half is scaled to the spread measured on a picture of noise, and the posterior is
    made narrow.
    """
    latent_channels = channels_of(vae.config)
    films = "temperal_downsample" in vae.config

    def of_channels(values: Any) -> Any:
        """Give a number for each channel the shape of a picture's, or a film's."""
        shaped = isinstance(values, torch.Tensor) and values.dim() == 1
        return values.view(1, -1, *(1,) * (3 if films else 2)) if shaped else values

    with torch.no_grad():
        for mix in (vae.quant_conv, vae.post_quant_conv):
            if mix is not None:
                same = torch.eye(mix.in_channels)[:, :, None, None]
                mix.weight.copy_(framed(same, mix.weight.dim() == 5))
                mix.bias.zero_()
        rough = torch.rand(1, vae.encoder.conv_in.in_channels, 8, 8) * 2 - 1
        smooth = torch.nn.functional.interpolate(rough, size=(64, 64), mode="bicubic")
        means, _ = vae.encoder(framed(smooth, films)).chunk(2, dim=1)
        last = vae.encoder.conv_out
        gain = 1 / (means.std() * scale)
        each = gain.view(-1, *(1,) * (last.weight.dim() - 1)) if gain.dim() else gain
        last.weight[:latent_channels] *= each
        last.bias[:latent_channels] = shift - gain * means.mean()
        last.weight[latent_channels:] *= 0.1
        last.bias[latent_channels:] = -6.0  # logarithm of the posterior's variance
        last = vae.decoder.conv_out
        latents = framed(torch.randn(1, latent_channels, 8, 8), films) / of_channels(scale)
        options: dict[str, Any] = {}
        if isinstance(vae, AutoencoderKLQwenImage21):  # a first picture, or it makes two of one
            vae.clear_cache()
            options = {"feat_cache": vae._feat_map, "feat_idx": [0], "first_chunk": True}
        pixels = vae.decoder(latents + of_channels(shift), **options)
        last.weight *= 0.5 / pixels.std()
        last.bias.zero_()
    return vae
