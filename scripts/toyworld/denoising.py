"""Helpers of both denoisers: latents of the pictures, captions of a batch, and the score."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from alignment import patch_tokens
from diffusers import AutoencoderKL
from empty_places import SHARE, EmptyPlaces
from harness import device
from pictures import BLOCK, Pictures, load, save_array
from torch import Tensor

from tlora_cli.foundation.bundled import model_folder
from tlora_cli.toyworld.captions import caption, prompt
from tlora_cli.toyworld.factors import PRIVATE, draw_factors
from tlora_cli.toyworld.judge import UNREADABLE, Judge
from tlora_cli.toyworld.renderer import LEFT_TO_RIGHT, MIDDLE_HEIGHT
from tlora_cli.toyworld.sharpness import laplacian

PICTURES = 24_000
DROPPED = 0.1
"""Share of captions left out, for classifier-free guidance."""
REACH = 17
"""Half the width of the window in which a subject stands, in pixels."""
HEADROOM = 10
"""Pixels over that window for what is worn."""
SUBJECT = 3.0
"""Weight of a place in that window, in terms of another: a third of the picture, in which all lies
that stays blurred for long. The optimum of the loss is the same."""


NOWHERE = torch.zeros(16, 16, dtype=torch.bool)
"""The window of a picture without a subject."""


class Batch(NamedTuple):
    """Examples that a step learns from.

    Attributes:
        latents: (B, C, 16, 16), scaled and shifted as the denoiser takes them.
        captions: one a picture.
        kept: (B,) bool, whose captions are kept.
        tokens: (B, 64, 96), toy-vit's.
        subjects: (B, 16, 16) bool, true in the window in which the subject stands.
    """

    latents: Tensor
    captions: list[str]
    kept: Tensor
    tokens: Tensor
    subjects: Tensor

    def weights(self) -> Tensor:
        """Return weights (B, 16, 16) of mean 1: a place in a window weighs `SUBJECT` others."""
        weights = 1 + (SUBJECT - 1) * self.subjects.float()
        return weights / weights.mean()


def load_averaged(model: Any, checkpoint: Path) -> Any:
    """Put the averaged weights of a training checkpoint into a model, frozen.

    What was frozen while training must be frozen in `model`, too.
    """
    state = torch.load(checkpoint, map_location=device(), weights_only=True)
    model.load_state_dict(state["model"])
    trained = [part for part in model.parameters() if part.requires_grad]
    # A state that was committed to go on from is the mean itself.
    with torch.no_grad():
        for part, average in zip(trained, state.get("averages", trained), strict=True):
            part.copy_(average)
    return model.to(device()).eval().requires_grad_(False)


def vae_name(base: str) -> str:
    """Return what the checkpoint of a base's VAE is called."""
    return f"vae-{base}"


def load_vae(work: Path, base: str) -> AutoencoderKL:
    """Return a base's VAE, frozen: the one in the work folder, or else the shipped one."""
    trained = work / vae_name(base)
    folder = trained if trained.exists() else model_folder(f"toy-{base}") / "vae"
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    return vae.to(device()).eval().requires_grad_(False)


class World:
    """Latents of the training pictures, and judge and VAE to score what is drawn.

    Args:
        work: folder with the VAE of toy-sdxl and the judge.
        base: `sdxl` or `flux`.
        count: of training pictures.
    """

    def __init__(self, work: Path, base: str, count: int = PICTURES) -> None:
        self.pictures: Pictures = load(work, "seen", count)
        self.vae = load_vae(work, base)
        self.judge = frozen_judge(work)
        self.empty = EmptyPlaces(work)
        own, empty = work / f"latents-{base}", work / f"latents-{base}-empty"
        latents = in_blocks(own, self.pictures, self._encode)
        self.latents = torch.cat([latents, in_blocks(empty, self.empty, self._encode)])
        own, empty = work / "tokens", work / "tokens-empty"
        tokens = in_blocks(own, self.pictures, patch_tokens)
        self.tokens = torch.cat([tokens, in_blocks(empty, self.empty, patch_tokens)])
        config = self.vae.config
        self.scale, self.shift = config.scaling_factor, config.shift_factor or 0.0

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> Tensor:
        parts = [self.vae.encode(part.to(device())).latent_dist.mean for part in pixels.split(100)]
        return torch.cat(parts).cpu()

    def batch(self, size: int, generator: torch.Generator, terse: float = 0.0) -> Batch:
        """Return pictures to learn from, a small part of them empty places.

        Args:
            size: pictures.
            generator: draws all.
            terse: share of captions that name little beside the class.
        """
        count = len(self.pictures)
        chosen = torch.randint(count, (size,), generator=generator)
        rng = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
        captions, subjects = [], []
        for row in range(size):
            if rng.random() < SHARE:
                number = rng.randrange(len(self.empty))
                chosen[row] = count + number
                captions.append(self.empty.caption(number, rng))
                subjects.append(NOWHERE)
            else:
                one = self.pictures.named(int(chosen[row]))
                short = terse > 0 and rng.random() < terse
                captions.append(caption(one, rng, terse=short))
                subjects.append(subject_window(one["position"]))
        kept = torch.rand(size, generator=generator) >= DROPPED
        latents = (self.latents[chosen].float() - self.shift) * self.scale
        tokens = self.tokens[chosen].float()
        where = device()
        windows = torch.stack(subjects).to(where)
        return Batch(latents.to(where), captions, kept.to(where), tokens.to(where), windows)

    def captions(self, pictures: Pictures, numbers: Iterable[int]) -> list[str]:
        """Return captions of pictures, the same for each number every time."""
        return [caption(pictures.named(number), random.Random(number)) for number in numbers]

    def score(
        self,
        sample: Callable[[list[str], torch.Generator], Tensor],
        count: int,
        tag: str,
        held_out: bool,
        composed: bool = False,
    ) -> dict[str, float]:
        """Return how often each factor, and all of them, are drawn as asked, and the sharpness.

        Args:
            sample: prompts -> pictures (B, 3, 64, 64) in [-1, 1].
            count: pictures.
            tag: put before the names.
            held_out: held-out or seen combinations.
            composed: prompts also name marking and feature, which must be right then.
        """
        rng = random.Random(f"score {held_out} {composed}")
        asked = [draw_factors(rng, held_out) for _ in range(count)]
        if composed:
            own = list(product(*(PRIVATE[name][1:] for name in PRIVATE)))
            asked = [{**one, **dict(zip(PRIVATE, rng.choice(own), strict=True))} for one in asked]
        drawn = []
        for start in range(0, count, 64):
            generator = torch.Generator().manual_seed(start)
            drawn.append(sample([prompt(one) for one in asked[start : start + 64]], generator))
        pixels = torch.cat(drawn).float()
        readings = self.judge.read(pixels.to(device()))
        names = list(asked[0])
        right = {name: 0 for name in names}
        whole = 0
        for one, reading in zip(asked, readings, strict=True):
            same = {name: reading[name] == one[name] for name in names}
            for name in names:
                right[name] += same[name]
            whole += all(same.values())
        refused = sum(reading["class"] == UNREADABLE for reading in readings)
        scores = {f"{tag}_TS*": whole / count, f"{tag}_refused": refused / count}
        scores |= {f"{tag}_{name}": hits / count for name, hits in right.items()}
        scores[f"{tag}_laplacian"] = laplacian(pixels)
        return {name: round(value, 4) for name, value in scores.items()}


@lru_cache
def subject_window(position: str) -> Tensor:
    """Return (16, 16) bool, true where a subject at a position stands, and what it wears."""
    middle = 4 * torch.arange(16) + 2
    across = (middle - LEFT_TO_RIGHT[position]).abs() <= REACH
    down = (middle - MIDDLE_HEIGHT + HEADROOM / 2).abs() <= REACH + HEADROOM / 2
    return down[:, None] & across


def frozen_judge(work: Path) -> Judge:
    """Return the judge that train_judge.py left in the work folder, as it is."""
    judge: Judge = load_averaged(Judge(), work / "judge.pt")
    return judge


def in_blocks(
    folder: Path, pictures: Pictures | EmptyPlaces, make: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return what a model makes of all pictures, in half precision, kept in files of 1,000.

    Args:
        folder: of the files.
        pictures: N drawings.
        make: pixels (B, 3, 64, 64) -> (B, ...).
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(pictures), BLOCK):
        file = folder / f"{start:06d}.npy"
        if not file.exists():
            made = make(pictures.tensor(slice(start, start + BLOCK))).half().numpy()
            save_array(file, made)
        parts.append(torch.from_numpy(np.load(file)))
    return torch.cat(parts)[: len(pictures)]
