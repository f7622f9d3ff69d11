"""What the denoisers work on: texts and latents of the shapes of training, with random values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TEXT_TOKENS = {"sdxl": 77, "flux": 512}
"""Length of the texts."""


def text_tokens(family: str, folder: str | None = None) -> int:
    """Return the length of a text; a folder's tokenizer may cut it shorter."""
    tokens = TEXT_TOKENS[family]
    name = "tokenizer" if family == "sdxl" else "tokenizer_2"
    file = Path(folder or "").expanduser() / name / "tokenizer_config.json"
    if folder is None or not file.is_file():
        return tokens
    return min(tokens, int(json.loads(file.read_text("utf-8")).get("model_max_length", tokens)))


def latent_channels(family: str, denoiser: Any) -> int:
    """Return the channels of a latent; FLUX's denoiser takes patches of 2 x 2."""
    channels: int = denoiser.config.in_channels
    return channels // 4 if family == "flux" else channels


def random_conditioning(
    family: str, denoiser: Any, batch: int, tokens: int | None = None
) -> dict[str, Tensor]:
    """Return random text, of the widths that the denoiser takes, and SDXL's sizes.

    Args:
        family: a name of `FAMILIES`.
        denoiser: says the widths, the device and the number format.
        batch: samples.
        tokens: of the text; default the family's.
    """
    config, like = denoiser.config, like_of(denoiser)
    tokens = tokens or TEXT_TOKENS[family]

    def draw(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, device=like.device, dtype=like.dtype)

    if family == "sdxl":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        return {
            "prompt_embeds": draw(tokens, config.cross_attention_dim),
            "text_embeds": draw(pooled),
            "time_ids": torch.full((batch, 6), 1024.0, device=like.device),
        }
    return {
        "prompt_embeds": draw(tokens, config.joint_attention_dim),
        "pooled_projections": draw(config.pooled_projection_dim),
    }


def like_of(denoiser: Any) -> Tensor:
    """Return a tensor of the denoiser's device and number format."""
    found: Tensor = next(p for p in denoiser.parameters() if p.is_floating_point())
    return found
