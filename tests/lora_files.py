"""Write LoRAs in other tools' names, and get each layer's update from stock diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from reference_runs import REFERENCE
from torch import Tensor, nn

from tlora_cli import RankSchedule
from tlora_cli.formats import AdapterWeights

SDXL_LAYERS = (
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
    "up_blocks.0.attentions.1.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.0.attentions.0.transformer_blocks.0.ff.net.2",
    "up_blocks.0.attentions.1.proj_in",
    "mid_block.attentions.0.proj_out",
)
FLUX_LAYERS = (
    "transformer_blocks.0.attn.to_q",
    "transformer_blocks.0.attn.add_k_proj",
    "transformer_blocks.0.attn.to_add_out",
    "transformer_blocks.0.ff_context.net.0.proj",
    "transformer_blocks.0.norm1.linear",
    "single_transformer_blocks.1.attn.to_v",
    "single_transformer_blocks.1.proj_mlp",
)
NAMES = {
    "peft": ("lora_A", "lora_B"),
    "older": ("lora.down", "lora.up"),
    "kohya": ("lora_down", "lora_up"),
}
PREFIX = {"sdxl": "unet.", "flux": "transformer."}


def model_of(family: str) -> nn.Module:
    folder, key, kind = {
        "sdxl": ("sdxl_lora_none", "unet_config", UNet2DConditionModel),
        "flux": ("flux_lora", "transformer_config", FluxTransformer2DModel),
    }[family]
    return kind.from_config(json.loads((REFERENCE / folder / "case.json").read_text())[key])


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}


def factors(name: str, style: str, layer: Any, rank: int, alpha: float | None) -> dict[str, Tensor]:
    down, up = NAMES[style]
    tensors = {
        f"{name}.{down}.weight": torch.randn(rank, layer.in_features),
        f"{name}.{up}.weight": torch.randn(layer.out_features, rank),
    }
    return tensors | ({} if alpha is None else {f"{name}.alpha": torch.tensor(float(alpha))})


def updates(weights: AdapterWeights) -> dict[str, Tensor]:
    assert weights.copies == 1
    assert weights.schedule == RankSchedule(weights.rank, weights.rank, kind="constant")
    assert weights.info.method == "lora"
    return {name: up @ down for name, (down, up) in weights.layers.items()}


def by_diffusers(family: str, file: Path) -> dict[str, Tensor]:
    """Return each layer's update after diffusers' own loader."""
    model = model_of(family)
    pipeline = {"sdxl": StableDiffusionXLPipeline, "flux": FluxPipeline}[family]
    options = {"unet_config": model.config} if family == "sdxl" else {"return_alphas": True}
    found, alphas, metadata = pipeline.lora_state_dict(
        str(file), return_lora_metadata=True, **options
    )
    if family == "sdxl":
        assert all("lora" in key for key in found)
        pipeline.load_lora_into_unet(found, alphas, model, adapter_name="a", metadata=metadata)
    else:
        pipeline.load_lora_into_transformer(
            found, alphas, model, adapter_name="a", metadata=metadata
        )
    return {
        name: module.get_delta_weight("a")
        for name, module in model.named_modules()
        if "a" in getattr(module, "lora_A", {})
    }


def check_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, update in expected.items():
        torch.testing.assert_close(found[name], update, msg=lambda m, n=name: f"{n}: {m}")
