"""Pictures -> what the judge reads on them, and how alike toy-vit finds them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import ViTModel

from tlora_cli.families.loading import no_load_bars
from tlora_cli.foundation.bundled import model_folder
from tlora_cli.toyworld.factors import SIZE
from tlora_cli.toyworld.judge import Judge


def pixels_of(pictures: Sequence[Image.Image]) -> Tensor:
    """Return (B, 3, 64, 64) in [-1, 1]; pictures of another size are resized."""
    arrays = [
        np.asarray(
            picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX)
            if picture.size != (SIZE, SIZE)
            else picture.convert("RGB")
        )
        for picture in pictures
    ]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1


@lru_cache
def load_judge() -> Judge:
    """Return the judge that is shipped.

    Raises:
        UserError: if its file is damaged.
    """
    judge = Judge()
    weights = load_file(model_folder("judge") / "model.safetensors")
    judge.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return judge.eval().requires_grad_(False)


def read(pictures: Sequence[Image.Image]) -> list[dict[str, str]]:
    """Return what the judge reads on each picture: attribute -> value."""
    return load_judge().read(pixels_of(pictures)) if pictures else []


@lru_cache
def _vit() -> Any:
    with no_load_bars(local=True):
        return ViTModel.from_pretrained(
            model_folder("toy-vit"), dtype=torch.float32, add_pooling_layer=False
        ).eval()


@torch.no_grad()
def features(pictures: Sequence[Image.Image], batch: int = 128) -> Tensor:
    """Return toy-vit's features of length 1, (B, D)."""
    parts = [
        _vit()(pixel_values=part).last_hidden_state[:, 0]
        for part in torch.split(pixels_of(pictures), batch)
    ]
    return torch.nn.functional.normalize(torch.cat(parts), dim=-1)
