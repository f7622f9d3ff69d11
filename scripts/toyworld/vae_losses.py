"""Losses that make a VAE's pictures sharp: errors of edges, of features, and a critic of patches.

And how its latents get mean 0 and spread 1 in the end, without a shift.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from tlora_cli.toyworld.judge import Judge


class PatchCritic(nn.Module):
    """Says of each patch of 22 x 22 pixels how real it looks (Isola et al. 2017)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (B, 1, H / 4, W / 4) of pixels (B, 3, H, W) in [-1, 1]."""
        answer: Tensor = self.layers(pixels)
        return answer


def criticized(critic: PatchCritic, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maker's loss, which leaves the critic alone, and the critic's own (hinge).

    One backward pass of a sum of both then does for both, so one optimizer and one checkpoint do.

    Args:
        critic: in training.
        made: pictures of the VAE, (B, 3, H, W) in [-1, 1].
        real: drawings of the same shape.
    """
    fixed = {name: part.detach() for name, part in critic.named_parameters()}
    fooled = -functional_call(critic, fixed, (made,)).mean()
    both = critic(torch.cat([made.detach(), real]))
    of_made, of_real = both.chunk(2)
    own = functional.relu(1 + of_made).mean() + functional.relu(1 - of_real).mean()
    return fooled, own


def edge_error(error: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbors in a picture of errors, across and down.

    Faint dots and stripes are all edge and little area.
    """
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def impressions(judge: Judge, pixels: Tensor) -> list[Tensor]:
    """Return what the first two blocks of a judge answer, normalized over channels."""
    found = []
    for number, layer in enumerate(judge.trunk[:12]):
        pixels = layer(pixels)
        if number in (5, 11):
            found.append(functional.normalize(pixels.float(), dim=1) * pixels.shape[1] ** 0.5)
    return found


def look_error(judge: Judge, made: Tensor, real: Tensor) -> Tensor:
    """Return how different two pictures look to a judge's first two blocks, as LPIPS does."""
    with torch.no_grad():
        wanted = impressions(judge, real)
    seen = impressions(judge, made)
    errors = [functional.mse_loss(one, two) for one, two in zip(seen, wanted, strict=True)]
    return torch.stack(errors).sum()


@torch.no_grad()
def center(vae: AutoencoderKL, latents: Tensor) -> None:
    """Change a VAE so that its latents have mean 0 and spread 1 in every channel.

    Both ends of the latents are linear layers, which take it up; pictures stay as they are.

    Args:
        vae: changed in place.
        latents: (N, C, h, w), the means of many pictures as they were before.
    """
    shift, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(shift)
    into, out = vae.quant_conv, vae.post_quant_conv
    into.bias[:channels] = (into.bias[:channels] - shift) / spread
    into.bias[channels:] -= 2 * spread.log()
    into.weight[:channels] /= spread[:, None, None, None]
    out.bias += out.weight[:, :, 0, 0] @ shift
    out.weight *= spread[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)
