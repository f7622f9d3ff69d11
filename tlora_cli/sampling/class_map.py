"""The places of a picture where a base model sees what a word names.

The denoiser is asked twice about the same noisy latent: with the words for the class, and with an
empty text. Its answers differ most where the class is (DiffEdit, Couairon et al. 2022, arXiv
2210.11427, section 3.2). With the answer f, the latent x and its noisy form x_t(n):

    d_t = mean over n of sum over channels of |f(x_t(n), t, words) - f(x_t(n), t, "")|    (h, w)
    map = sum over t of d_t / mean(d_t)                                                   (h, w)

f is what the base predicts, whatever that is: noise, velocity or the way of a flow. Each d_t is
divided by its mean, since answers are of another size at another noise level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlora_cli.families import Conditioning, Family
from tlora_cli.formulas.objectives import Objective
from tlora_cli.foundation.devices import to_device

TIMESTEPS = (400, 600)
"""Timesteps, of 0 to 1000: less noise leaves the base nothing to guess, more leaves no outline."""
NOISES = 4
"""Noises at each timestep, which the answers are averaged over."""
SEED = 0


@dataclass(frozen=True)
class ClassMap:
    """A base and two texts, as the difference of its answers is taken.

    Attributes:
        family: knows how the denoiser is called.
        denoiser: of the base, without an adapter.
        objective: corrupts latents.
        dtype: of the denoiser's input.
        guidance: value given to a guidance-distilled model.
        texts: two rows, the words for the class and the empty text.
    """

    family: Family
    denoiser: nn.Module
    objective: Objective
    dtype: torch.dtype
    guidance: float
    texts: Conditioning

    @torch.no_grad()
    def __call__(self, latent: Tensor, size: Conditioning) -> Tensor:
        """Return the map, (h, w) fp32 on the CPU; its mean is the number of timesteps.

        Both texts are asked together and the noises one after another, so that it takes no more
        memory than a training step. The noises are drawn on the CPU, the same on any device.

        Args:
            latent: of the picture, (C, h, w), without noise.
            size: what the denoiser is told of the picture's size, one row.
        """
        rows = {key: torch.cat([row, row]).to(latent.device) for key, row in size.items()}
        given = {**self.texts, **rows}
        generator = torch.Generator().manual_seed(SEED)
        total = torch.zeros(latent.shape[-2:])
        for timestep in TIMESTEPS:
            t = torch.tensor([timestep, timestep], device=latent.device)
            apart = torch.zeros(latent.shape[-2:], device=latent.device)
            for _ in range(NOISES):
                noise = to_device(torch.randn(latent.shape, generator=generator), latent.device)
                noisy = self.objective.corrupt(latent.expand(2, -1, -1, -1), noise[None], t)
                named, empty = self.family.predict(
                    self.denoiser, noisy.to(self.dtype), t, given, self.guidance
                ).float()
                apart += (named - empty).abs().sum(0)
            total += (apart / apart.mean()).cpu()
        return total
