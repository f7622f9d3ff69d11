"""Pictures for the strict judge that need models: reconstructions, noisy latents, early samples.

Drawn once and kept in the work folder. Early samples are what the first versions of both bases
take a picture for from much noise, in a single step: smeared, and often of two minds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from denoising import load_vae
from harness import device
from pictures import Pictures, save_array
from torch import Tensor

from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.foundation.bundled import bases
from tlora_cli.toyworld.captions import prompt
from tlora_cli.toyworld.factors import FACTORS

EARLY = (600, 960)
"""Timesteps of 1000 from which early samples are guessed."""
NOISE = (0.6, 1.3)
"""Noise on latents, in terms of their spread."""


def vaes(work: Path) -> dict[str, Any]:
    """Return the VAEs of the first bases and the new one: name -> model."""
    found = {
        base: load_pipeline(FAMILIES[family], Base(base), parts=("vae",)).vae
        for base, family in bases().items()
    }
    found["new"] = load_vae(work, "sdxl")
    return {name: one.to(device()).eval() for name, one in found.items()}


def kept(file: Path, make: Callable[[], Tensor]) -> Tensor:
    """Return pictures (N, 3, 64, 64) in [-1, 1] from a file of bytes, which is made first."""
    if not file.exists():
        save_array(file, ((make().clamp(-1, 1) + 1) * 127.5).round().byte().numpy())
    return torch.from_numpy(np.load(file)).float() / 127.5 - 1


@torch.no_grad()
def reconstructed(vae: Any, pixels: Tensor, noise: tuple[float, float] = (0, 0)) -> Tensor:
    """Return pictures put through a VAE, with noise on the latents in terms of their spread."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for part in pixels.split(50):
        latents = vae.encode(part.to(device())).latent_dist.mean
        low, high = noise
        level = low + (high - low) * torch.rand(len(part), 1, 1, 1, generator=generator)
        drawn = torch.randn(latents.shape, generator=generator) * level
        latents = latents + drawn.to(latents) * latents.std()
        parts.append(vae.decode(latents).sample.float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def early(vae: Any, pictures: Pictures, first: int, count: int) -> Tensor:
    """Return what the first toy-sdxl takes noisy drawings for, with their right captions.

    Args:
        vae: its own.
        pictures: drawings and what is on them.
        first: number of the first drawing.
        count: of drawings.
    """
    pipeline = load_pipeline(FAMILIES["sdxl"], Base("toy-sdxl")).to(device())
    alphas = pipeline.scheduler.alphas_cumprod
    generator = torch.Generator().manual_seed(0)
    parts = []
    sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]], device=device())
    for start in range(first, first + count, 50):
        chosen = range(start, min(start + 50, first + count))
        latents = vae.encode(pictures.tensor(slice(chosen.start, chosen.stop)).to(device()))
        clean = latents.latent_dist.mean * vae.config.scaling_factor
        t = torch.randint(*EARLY, (len(chosen),), generator=generator)
        share = alphas[t].to(clean)[:, None, None, None]
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        named = [{n: pictures.named(i)[n] for n in FACTORS} for i in chosen]
        states, _, pooled, _ = pipeline.encode_prompt(
            [prompt(one) for one in named], do_classifier_free_guidance=False
        )
        noisy = share.sqrt() * clean + (1 - share).sqrt() * noise
        velocity = pipeline.unet(
            noisy,
            t.to(device()),
            encoder_hidden_states=states,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes.expand(len(chosen), -1)},
        ).sample
        guess = share.sqrt() * noisy - (1 - share).sqrt() * velocity
        parts.append(vae.decode(guess / vae.config.scaling_factor).sample.cpu())
    return torch.cat(parts)


def make_pools(work: Path, pictures: Pictures, each: int) -> dict[str, Tensor]:
    """Return `readable`, whose pictures repeat the first `each` drawings, and `unreadable`."""
    models = vaes(work)
    order = list(models)
    random.Random(0).shuffle(order)
    pixels = pictures.tensor(slice(0, each))
    parts = pixels.chunk(len(order))

    def readable() -> Tensor:
        mixed = zip(order, parts, strict=True)
        return torch.cat([reconstructed(models[name], part) for name, part in mixed])

    def noisy() -> Tensor:
        mixed = zip(reversed(order), parts, strict=True)
        return torch.cat([reconstructed(models[name], part, NOISE) for name, part in mixed])

    folder = work / "pools"
    folder.mkdir(exist_ok=True)
    return {
        "readable": kept(folder / "reconstructed.npy", readable),
        "noisy": kept(folder / "noisy.npy", noisy),
        "early": kept(
            folder / "early.npy", lambda: early(models["toy-sdxl"], pictures, each, each // 2)
        ),
    }
