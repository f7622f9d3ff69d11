"""The configurations of the standard denoisers, and a denoiser without weights made from one.

Public facts of stabilityai/stable-diffusion-xl-base-1.0 (unet/config.json) and
black-forest-labs/FLUX.1-dev (transformer/config.json); fields at diffusers' defaults are left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlora_cli.errors import UserError
from tlora_cli.families import FAMILIES

SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}

FLUX_DEV: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
}

STANDARD = {"sdxl": SDXL_UNET, "flux": FLUX_DEV}
"""Family -> configuration of its denoiser."""


def meta_denoiser(family: str, base: str | None = None) -> nn.Module:
    """Return a denoiser with every layer's name and shape but no weights (on the meta device).

    Args:
        family: a name of `FAMILIES`.
        base: a diffusers folder whose configuration is used instead of the standard one. Anything
            else, such as a Hub id, is taken to have the standard one.

    Raises:
        UserError: if the folder's configuration can't be read.
    """
    config = STANDARD[family]
    file = Path(base or "").expanduser() / FAMILIES[family].denoiser / "config.json"
    if base is not None and file.is_file():
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"the base's configuration can't be read: {error}", str(file)
            ) from error
    with torch.device("meta"):
        model: nn.Module = FAMILIES[family].denoiser_class.from_config(config)  # type: ignore[attr-defined]
    return model
