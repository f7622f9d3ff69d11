"""Helpers of both denoisers: latents of the pictures, captions of a batch, and the score."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from alignment import patch_tokens
from architectures import vae as make_vae
from harness import device
from pictures import Pictures, load
from torch import Tensor

from tlora_cli.toyworld.captions import caption, prompt
from tlora_cli.toyworld.factors import FACTORS, draw_factors
from tlora_cli.toyworld.judge import Judge

PICTURES = 24_000
DROPPED = 0.1
"""Share of captions left out, for classifier-free guidance."""


def load_averaged(model: Any, checkpoint: Path) -> Any:
    """Put the averaged weights of a training checkpoint into a model, frozen.

    What was frozen while training must be frozen in `model`, too.
    """
    state = torch.load(checkpoint, map_location=device(), weights_only=True)
    model.load_state_dict(state["model"])
    trained = [part for part in model.parameters() if part.requires_grad]
    with torch.no_grad():
        for part, average in zip(trained, state["averages"], strict=True):
            part.copy_(average)
    return model.to(device()).eval().requires_grad_(False)


def vae_name(factor: int) -> str:
    """Return what the checkpoint of a VAE is called."""
    return f"vae-{factor}"


def decoder_name(factor: int) -> str:
    """Return what the checkpoint of a VAE with a refined decoder is called."""
    return f"vae-{factor}-decoder"


def load_vae(work: Path, factor: int, refined: bool = True) -> Any:
    """Return the trained VAE of a factor, with its refined decoder if asked for and there."""
    vae = load_averaged(make_vae(factor), work / f"{vae_name(factor)}.pt")
    checkpoint = work / f"{decoder_name(factor)}.pt"
    if not (refined and checkpoint.exists()):
        return vae
    vae.decoder.requires_grad_(True)
    vae.post_quant_conv.requires_grad_(True)
    return load_averaged(vae, checkpoint)


def scale_of(work: Path, factor: int) -> tuple[float, float]:
    """Return scaling and shift factor of the latents.

    Raises:
        FileNotFoundError: if no denoiser was trained in the work folder.
    """
    latents = np.load(work / f"latents-{factor}.npy").astype(np.float32)
    return 1 / float(latents.std()), float(latents.mean())


class World:
    """Latents of the training pictures, and judge and VAE to score what is drawn.

    Args:
        work: folder with the checkpoints of the VAEs and the judge.
        factor: of the VAE.
    """

    def __init__(self, work: Path, factor: int) -> None:
        self.pictures: Pictures = load(work, "seen", PICTURES)
        self.vae = load_vae(work, factor)
        self.judge = load_averaged(Judge(), work / "judge.pt")
        self.latents = self._encode(work / f"latents-{factor}.npy")
        self.shift = float(self.latents.mean())
        self.scale = 1 / float(self.latents.std())
        self.tokens = patch_tokens(self.pictures, work / "tokens.npy")

    def _encode(self, cache: Path) -> Tensor:
        if not cache.exists():
            print("encoding the pictures", flush=True)
            parts = torch.arange(len(self.pictures)).split(128)
            with torch.no_grad():
                means = [
                    self.vae.encode(self.pictures.tensor(part).to(device())).latent_dist.mean.cpu()
                    for part in parts
                ]
            np.save(cache, torch.cat(means).half().numpy())
        return torch.from_numpy(np.load(cache)).float()

    def batch(
        self, size: int, generator: torch.Generator, terse: float = 0.0
    ) -> tuple[Tensor, list[str], Tensor, Tensor]:
        """Return latents (B, C, h, w), captions, which to keep (B,), and patch tokens (B, 64, 96).

        The latents are unscaled.

        Args:
            size: pictures.
            generator: draws all.
            terse: share of captions that name little beside the class.
        """
        chosen = torch.randint(len(self.pictures), (size,), generator=generator)
        rng = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
        captions = [
            caption(self.pictures.named(int(index)), rng, terse=terse > 0 and rng.random() < terse)
            for index in chosen
        ]
        kept = torch.rand(size, generator=generator) >= DROPPED
        latents, tokens = self.latents[chosen].to(device()), self.tokens[chosen].float()
        return latents, captions, kept.to(device()), tokens.to(device())

    def score(
        self,
        sample: Callable[[list[str], torch.Generator], Tensor],
        count: int,
        tag: str,
        held_out: bool,
    ) -> dict[str, float]:
        """Return how often each factor, and all of them, are drawn as asked.

        Args:
            sample: prompts -> pictures (B, 3, 64, 64) in [-1, 1].
            count: pictures.
            tag: put before the names.
            held_out: held-out or seen combinations.
        """
        rng = random.Random(f"score {held_out}")
        asked = [draw_factors(rng, held_out) for _ in range(count)]
        readings = []
        for start in range(0, count, 64):
            generator = torch.Generator().manual_seed(start)
            pixels = sample([prompt(one) for one in asked[start : start + 64]], generator)
            readings += self.judge.read(pixels.float())
        right = {name: 0 for name in FACTORS}
        whole = 0
        for one, reading in zip(asked, readings, strict=True):
            same = {name: reading[name] == one[name] for name in FACTORS}
            for name in FACTORS:
                right[name] += same[name]
            whole += all(same.values())
        scores = {f"{tag}_TS*": whole / count}
        scores |= {f"{tag}_{name}": hits / count for name, hits in right.items()}
        return {name: round(value, 3) for name, value in scores.items()}
