"""Inputs of the denoisers: texts and latents of the shapes of training, with random values."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.files import expanded


def text_tokens(family: str, folder: str | None = None) -> int:
    """Return the length of a text; a folder's tokenizer may cut it shorter."""
    kind = FAMILIES[family]
    tokens = kind.text_tokens
    file = expanded(folder or "") / kind.text_tokenizer / "tokenizer_config.json"
    if folder is None or not file.is_file():
        return tokens
    return min(tokens, int(json.loads(file.read_text("utf-8")).get("model_max_length", tokens)))


def random_conditioning(
    family: str, denoiser: Any, batch: int, tokens: int | None = None
) -> dict[str, Tensor]:
    """Return random text, of the widths that the denoiser takes, and what else it is told.

    Args:
        family: a name of `FAMILIES`.
        denoiser: says the widths, the device and the number format.
        batch: samples.
        tokens: of the text; default the family's.
    """
    kind = FAMILIES[family]
    return kind.random_conditioning(denoiser, batch, tokens or kind.text_tokens)


def random_like(denoiser: Any, batch: int) -> Callable[..., Tensor]:
    """Return what draws (batch, *shape) in the denoiser's number format, on its device."""
    like = like_of(denoiser)

    def draw(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, device=like.device, dtype=like.dtype)

    return draw


def like_of(denoiser: Any) -> Tensor:
    """Return a tensor of the denoiser's device and number format."""
    found: Tensor = next(p for p in denoiser.parameters() if p.is_floating_point())
    return found
