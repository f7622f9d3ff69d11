"""Representation alignment: what a denoiser sees early on should tell what toy-vit sees.

Yu et al. 2024, "Representation Alignment for Generation" (REPA): a small head on the denoiser's
hidden states of a noisy picture predicts a self-supervised encoder's patch tokens of the clean one.
Shapes are learned in far fewer steps. The head is not shipped. toy-vit has seen no held-out
combination and no label, so neither does the denoiser.
"""

from __future__ import annotations

import random
from functools import lru_cache

import torch
from harness import device
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTModel

from tlora_cli.foundation.bundled import model_folder
from tlora_cli.toyworld.factors import draw_scene
from tlora_cli.toyworld.reading import pixels_of
from tlora_cli.toyworld.renderer import draw

WIDTH = 96
"""Width of toy-vit's patch tokens; it has 8 x 8, as many as the denoisers have places."""
WEIGHT = 0.5


class Alignment(nn.Module):
    """The head, and the loss: WEIGHT times one minus the mean cosine."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.Linear(width, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, WIDTH)
        )

    def forward(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Return the loss of hidden states (B, 64, width) against tokens (B, 64, 96)."""
        found = self.head(hidden).float()
        return WEIGHT * (1 - functional.cosine_similarity(found, tokens, dim=-1).mean())


def listen(module: nn.Module, part: int) -> list[Tensor]:
    """Return a list that each training call of a module appends part of its answer to."""
    heard: list[Tensor] = []

    def hear(_: nn.Module, inputs: object, output: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            heard.append(output[part])

    module.register_forward_hook(hear)
    return heard


@torch.no_grad()
def patch_tokens(pixels: Tensor) -> Tensor:
    """Return toy-vit's patch tokens (B, 64, 96), centered.

    Centered by its mean on drawings, because the mean token says nothing of a picture and
    makes every cosine high.

    Args:
        pixels: (B, 3, 64, 64) in [-1, 1].
    """
    vit, mean = _vit()
    parts = [vit(part.to(device())).last_hidden_state[:, 1:].cpu() for part in pixels.split(200)]
    return torch.cat(parts) - mean


@lru_cache
@torch.no_grad()
def _vit() -> tuple[ViTModel, Tensor]:
    """Return toy-vit, and its mean patch token (96,) on 400 drawings."""
    vit = ViTModel.from_pretrained(
        model_folder("toy-vit"), dtype=torch.float32, add_pooling_layer=False
    )
    vit = vit.to(device()).eval()
    rng = random.Random("tokens")
    pixels = pixels_of([draw(draw_scene(rng, False)).image for _ in range(400)])
    return vit, vit(pixels.to(device())).last_hidden_state[:, 1:].mean((0, 1)).cpu()
