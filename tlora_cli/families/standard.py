"""The configurations of the standard bases, and models without weights made from them.

Public facts of stabilityai/stable-diffusion-xl-base-1.0 and
black-forest-labs/FLUX.1-dev (config.json of each part); fields at diffusers' defaults are left out.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError, safe_open
from torch import nn

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.errors import UserError

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

_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 1024,
}
VAES: dict[str, dict[str, Any]] = {
    "sdxl": {**_VAE, "latent_channels": 4, "scaling_factor": 0.13025},
    "flux": {
        **_VAE,
        "latent_channels": 16,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
}
"""Family -> configuration of its VAE."""

TEXT_PARAMETERS = {"sdxl": 123_060_480 + 694_659_840, "flux": 123_060_480 + 4_762_310_656}
"""Family -> parameters of its two text encoders: CLIP L and G, or CLIP L and T5-XXL's encoder."""

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
    config = _config(STANDARD[family], base, FAMILIES[family].denoiser)
    with torch.device("meta"):
        model: nn.Module = FAMILIES[family].denoiser_class.from_config(config)  # type: ignore[attr-defined]
    return model


def meta_vae(family: str, base: str | None = None) -> Any:
    """Return a VAE without weights, in fp32; see `meta_denoiser`."""
    with torch.device("meta"):
        return AutoencoderKL.from_config(_config(VAES[family], base, "vae"))


def text_parameters(family: str, base: str | None = None) -> int:
    """Return how many parameters the text encoders have; a folder's files are read for it.

    Raises:
        UserError: if a file can't be read.
    """
    found = 0
    for part in ("text_encoder", "text_encoder_2"):
        for file in (Path(base or "").expanduser() / part).glob("*.safetensors") if base else ():
            try:
                with safe_open(file, framework="pt") as tensors:
                    shapes = [tensors.get_slice(key).get_shape() for key in list(tensors.keys())]
            except (OSError, SafetensorError) as error:
                raise UserError(f"the base can't be read: {error}", str(file)) from error
            found += sum(math.prod(shape) for shape in shapes)
    return found or TEXT_PARAMETERS[family]


def _config(standard: dict[str, Any], base: str | None, part: str) -> dict[str, Any]:
    """Return the configuration in a base's folder, or the standard one."""
    file = Path(base or "").expanduser() / part / "config.json"
    if base is None or not file.is_file():
        return standard
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the base's configuration can't be read: {error}", str(file)) from error
    return found
