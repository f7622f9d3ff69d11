"""Random adapters of every low-rank method on small bases, and what they do to a layer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    Krea2Transformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)
from torch import Tensor
from typer.testing import CliRunner

from tlora_cli import RankSchedule, UserError
from tlora_cli.cli.commands import app
from tlora_cli.families import FAMILIES
from tlora_cli.formats import AdapterInfo, AdapterWeights, tlora_file
from tlora_cli.methods import METHODS

UNET: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (4, 4),
    "transformer_layers_per_block": (1, 2),
    "cross_attention_dim": 24,
    "norm_num_groups": 8,
}
FLUX: dict[str, Any] = {
    "num_layers": 1,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 16,
    "axes_dims_rope": (4, 6, 6),
}
DENOISERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sdxl": (UNet2DConditionModel, UNET),
    "flux": (FluxTransformer2DModel, FLUX),
    "flux2": (
        Flux2Transformer2DModel,
        {
            "in_channels": 128,
            "num_layers": 1,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 24,
            "timestep_guidance_channels": 32,
            "axes_dims_rope": (4, 4, 4, 4),
            "guidance_embeds": False,
        },
    ),
    "z_image": (
        ZImageTransformer2DModel,
        {
            "dim": 32,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 16,
            "axes_dims": [4, 6, 6],
            "axes_lens": [64, 32, 32],
        },
    ),
    "qwen_image": (
        QwenImageTransformer2DModel,
        {
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 16,
            "axes_dims_rope": (4, 6, 6),
        },
    ),
    "sd3": (
        SD3Transformer2DModel,
        {
            "sample_size": 16,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 24,
            "caption_projection_dim": 32,
            "pooled_projection_dim": 16,
            "pos_embed_max_size": 16,
            "dual_attention_layers": (0,),
        },
    ),
    "krea2": (
        Krea2Transformer2DModel,
        {
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "intermediate_size": 64,
            "text_hidden_dim": 16,
            "text_num_attention_heads": 2,
            "text_num_key_value_heads": 2,
            "text_intermediate_size": 32,
            "axes_dims_rope": (4, 6, 6),
        },
    ),
}
"""Family -> class and configuration of a small denoiser."""
RANK, LEAST = 6, 2
LOW_RANK = sorted(name for name, method in METHODS.items() if method.size == "rank")
TWO_COPIES = ("ortho_lora", "pissa", "tlora")


def write_bases(folder: Path) -> dict[str, Path]:
    """Write the configurations of small bases as diffusers folders have them."""
    for family in DENOISERS:
        denoiser(family).save_config(folder / family / FAMILIES[family].denoiser)
    return {family: folder / family for family in DENOISERS}


def denoiser(family: str) -> Any:
    cls, config = DENOISERS[family]
    return cls(**config)


def random_adapter(
    path: Path,
    family: str,
    method: str = "tlora",
    schedule: RankSchedule | None = None,
    *,
    rank: int = RANK,
    small: float = 1.0,
    targets: str | None = None,
) -> AdapterWeights:
    """Write an adapter with random factors of a method's kind.

    Args:
        path: of the file.
        family: whose attention layers it adapts.
        method: of low rank.
        schedule: of a masked method.
        rank: without a schedule.
        small: size of what training changed, against the start.
        targets: which layers.
    """
    copies = 2 if method in TWO_COPIES else 1
    schedule = schedule or RankSchedule(rank, max(1, rank // 3))
    rank = schedule.rank
    if not METHODS[method].masked:
        schedule = RankSchedule(rank, rank, kind="constant")
    chance = torch.Generator().manual_seed(rank)
    layers = {}
    for name, layer in FAMILIES[family].target_layers(denoiser(family), targets).items():
        out, *inner = layer.weight.shape
        down = torch.randn(copies * rank, *inner, generator=chance)
        up = torch.randn(out, copies * rank, *[1 for _ in inner[1:]], generator=chance)
        if copies == 2:  # down: S A, and its distance from the start; up: distance, and the start
            down[rank:] *= small
            up[:, :rank] *= small
        layers[name] = (down, up)
    info = AdapterInfo(method=method, placeholder="sks", class_name="dog", train_steps=800, seed=3)
    weights = AdapterWeights(layers, copies, schedule, family, info)
    tlora_file.write(path, weights, timestep_scale=FAMILIES[family].timestep_scale)
    return weights


def convert(*arguments: str | Path) -> str:
    """Run the command and return what it prints; a UserError comes through."""
    return command("convert", *arguments)


def command(*arguments: str | Path) -> str:
    """Run a command and return what it prints; a UserError comes through."""
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def active(schedule: RankSchedule, t: float) -> int:
    """r(t), by the formulas, written again."""
    span = schedule.rank - schedule.min_rank
    if schedule.kind == "constant":
        return schedule.rank
    if schedule.kind == "linear":
        return math.floor(span * ((1000 - t) / 1000) ** schedule.alpha) + schedule.min_rank
    if schedule.kind == "cosine":
        return math.floor(span * (1 + math.cos(math.pi * t / 1000)) / 2) + schedule.min_rank
    assert schedule.kind == "step"
    return [rank for start, rank in schedule.points or () if start <= t][-1]


def masked_update(weights: AdapterWeights, layer: str, t: float) -> Tensor:
    """B M_t A in float64, by the formula."""
    assert weights.schedule is not None
    down, up = (factor.double().flatten(1) for factor in weights.layers[layer])
    rank = weights.schedule.rank
    mask = (torch.arange(rank) < active(weights.schedule, t)).double().repeat(weights.copies)
    return up @ (mask[:, None] * down)


def close(found: Tensor, expected: Tensor) -> bool:
    """Whether they agree to a millionth of the largest number; of nothing, exactly."""
    return bool((found - expected).abs().max() <= 1e-6 * expected.abs().max())
