"""Small random models of each family, in diffusers and in ComfyUI; see `comfyui.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file
from torch import Tensor

from tlora_cli import RankSchedule
from tlora_cli.families import FAMILIES, Family
from tlora_cli.formats import AdapterInfo, AdapterWeights, tlora_file


@dataclass(frozen=True)
class Small:
    """A small model of a family.

    Attributes:
        cls: class of diffusers.
        config: its configuration.
        words: tokens of a prompt, their width, and the width of the pooled text.
        kind: ComfyUI's class, if the probe must make it: its loader takes the true sizes alone.
        there: configuration of that class; empty if ComfyUI's own loader finds the class and all
            sizes in the weights.
        names: function of `comfy.utils` that maps diffusers' names of weights to ComfyUI's; empty
            if they are the same.
        named: configuration that this function is given.
        others: (pattern, replacement) one after the other, for names that the function lacks.
        scale: what ComfyUI's timestep is multiplied with to get t (0..1000).
        targets: reaches of adapters to try.
    """

    cls: str
    config: dict[str, Any]
    words: tuple[int, int, int | None]
    kind: str = ""
    there: dict[str, Any] = field(default_factory=dict)
    names: str = ""
    named: dict[str, Any] = field(default_factory=dict)
    others: Sequence[tuple[str, str]] = ()
    scale: float = 1000.0
    targets: Sequence[str] = ("linear",)

    def make(self) -> Any:
        """Return the model of diffusers, with whatever weights it begins with."""
        return getattr(diffusers, self.cls)(**self.config)


SDXL = Small(
    "UNet2DConditionModel",
    {
        "block_out_channels": (32, 64, 128),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (1, 1, 2),
        "cross_attention_dim": 64,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 6 * 256 + 32,
    },
    (77, 64, 32),
    "SDXL",
    {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32,
        "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "num_head_channels": 64,
        "transformer_depth": [0, 0, 1, 1, 2, 2], "transformer_depth_middle": 2,
        "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2], "use_spatial_transformer": True,
        "use_linear_in_transformer": True, "context_dim": 64, "adm_in_channels": 6 * 256 + 32,
        "num_classes": "sequential", "legacy": False, "use_temporal_attention": False,
    },
    "unet_to_diffusers",
    scale=1.0,
    targets=tuple(FAMILIES["sdxl"].named_targets),
)  # fmt: skip
FLUX = Small(
    "FluxTransformer2DModel",
    {
        "in_channels": 64,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "joint_attention_dim": 64,
        "pooled_projection_dim": 32,
        "guidance_embeds": True,
        "axes_dims_rope": (8, 12, 12),
    },
    (16, 64, 32),
    "Flux",
    {
        "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2,
        "vec_in_dim": 32, "context_in_dim": 64, "hidden_size": 64, "mlp_ratio": 4.0, "num_heads": 2,
        "depth": 2, "depth_single_blocks": 2, "axes_dim": [8, 12, 12], "theta": 10000,
        "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
    },
    "flux_to_diffusers",
)  # fmt: skip
FLUX2 = Small(
    "Flux2Transformer2DModel",
    {
        "in_channels": 128,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 128,
        "num_attention_heads": 1,
        "joint_attention_dim": 48,
        "guidance_embeds": False,
    },
    (512, 48, None),  # as many as prompts have; shorter ones are filled up with zeros there
    names="flux_to_diffusers",
    named={"depth": 2, "depth_single_blocks": 2, "hidden_size": 128},
    others=(
        (r"^time_guidance_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
        (r"^time_guidance_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
        (r"_modulation(_img|_txt)?\.linear\.", r"_modulation\1.lin."),
    ),
)
Z_IMAGE = Small(
    "ZImageTransformer2DModel",
    {
        "dim": 1056,  # of less, and of another width than 96 times something, classes differ
        "n_layers": 1,
        "n_refiner_layers": 1,
        "n_heads": 22,
        "n_kv_heads": 22,
        "cap_feat_dim": 48,
        "axes_dims": [16, 16, 16],
        "axes_lens": [1024, 64, 64],
    },
    (40, 48, None),
    "ZImage",
    {
        "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 1056,
        "cap_feat_dim": 48,
        "n_layers": 1, "n_refiner_layers": 1, "qk_norm": True, "n_heads": 22, "n_kv_heads": 22,
        "axes_dims": [16, 16, 16], "axes_lens": [1024, 64, 64], "rope_theta": 256.0,
        "ffn_dim_multiplier": 8 / 3, "z_image_modulation": True, "time_scale": 1000.0,
        "pad_tokens_multiple": 32,
    },
    "z_image_to_diffusers",
)  # fmt: skip
QWEN_IMAGE = Small(
    "QwenImageTransformer2DModel",
    {
        "in_channels": 64,
        "out_channels": 16,
        "num_layers": 2,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "joint_attention_dim": 48,
        "axes_dims_rope": (8, 12, 12),
    },
    (16, 48, None),
    "QwenImage",
    {
        "image_model": "qwen_image", "in_channels": 64, "num_layers": 2, "attention_head_dim": 32,
        "num_attention_heads": 2, "joint_attention_dim": 48, "axes_dims_rope": (8, 12, 12),
    },
)  # fmt: skip
SD3 = Small(
    "SD3Transformer2DModel",
    {
        "sample_size": 16,
        "num_layers": 2,
        "attention_head_dim": 64,
        "num_attention_heads": 2,
        "joint_attention_dim": 48,
        "caption_projection_dim": 128,
        "pooled_projection_dim": 32,
        "pos_embed_max_size": 16,
        "dual_attention_layers": (0,),
        "qk_norm": "rms_norm",
    },
    (16, 48, 32),
    names="mmdit_to_diffusers",
    named={"depth": 2},
    scale=1.0,
)
KREA2 = Small(
    "Krea2Transformer2DModel",
    {
        "in_channels": 64,
        "num_layers": 2,
        "attention_head_dim": 128,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 768,
        "text_hidden_dim": 40,
        "text_num_attention_heads": 20,
        "text_num_key_value_heads": 20,
        "text_intermediate_size": 128,
    },
    (16, 12 * 40, None),
    names="krea2_to_diffusers",
    named={"layers": 2},
    others=(
        (r"^transformer_blocks\.", "blocks."),
        (r"^text_fusion\.", "txtfusion."),
        (r"\.attn\.norm_([qk])\.weight", r".attn.qknorm.\1norm.scale"),
        (r"\.norm1\.weight", ".prenorm.scale"),
        (r"\.norm2\.weight", ".postnorm.scale"),
        (r"^(blocks\.\d+)\.scale_shift_table", r"\1.mod.lin"),
        (r"^final_layer\.scale_shift_table", "last.modulation.lin"),
        (r"^final_layer\.norm\.weight", "last.norm.scale"),
        (r"^final_layer\.", "last."),
        (r"^img_in\.", "first."),
        (r"^time_embed\.linear_1\.", "tmlp.0."),
        (r"^time_embed\.linear_2\.", "tmlp.2."),
        (r"^time_mod_proj\.", "tproj.1."),
        (r"^txt_in\.norm\.weight", "txtmlp.0.scale"),
        (r"^txt_in\.linear_1\.", "txtmlp.1."),
        (r"^txt_in\.linear_2\.", "txtmlp.3."),
    ),
)
MODELS = {
    "sdxl": SDXL,
    "flux": FLUX,
    "flux2": FLUX2,
    "z_image": Z_IMAGE,
    "qwen_image": QWEN_IMAGE,
    "sd3": SD3,
    "krea2": KREA2,
}
"""Family -> its small model."""


def make_models(work: Path, families: Sequence[str], schedule: RankSchedule) -> None:
    """Write the families' models, and adapters of the schedule's rank for their layers."""
    for family in families:
        small, kind = MODELS[family], FAMILIES[family]
        torch.manual_seed(3)
        folder = work / family
        folder.mkdir()
        model = small.make()
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
            elif len(parameter) == 1 or not parameter.any():  # which begin as zeros, or as nothing
                parameter.data.normal_(std=0.1)
        weights = {name: one.contiguous() for name, one in model.state_dict().items()}
        save_file(weights, folder / "weights.safetensors")
        told = {key: getattr(small, key) for key in ("kind", "there", "names", "named", "others")}
        told["words"] = small.words
        (folder / "comfyui.json").write_text(json.dumps(told))
        for targets in small.targets:
            file = folder / f"{targets}.safetensors"
            _write_adapter(file, kind, model, targets, schedule)


def _write_adapter(
    file: Path, kind: Family, model: Any, targets: str, schedule: RankSchedule
) -> None:
    layers = {}
    for name, layer in kind.target_layers(model, targets).items():
        out, *inner = layer.weight.shape
        rank = 2 * schedule.rank
        down = torch.randn(rank, *inner) / layer.weight[0].numel() ** 0.5
        up = torch.randn(out, rank, *[1 for _ in inner[1:]]) / rank**0.5
        layers[name] = (down, up)
    info = AdapterInfo(method="tlora", placeholder="sks", class_name="dog")
    weights = AdapterWeights(layers, 2, schedule, kind.name, info)
    tlora_file.write(file, weights, timestep_scale=kind.timestep_scale)


def t_of(family: str, call: dict[str, Tensor]) -> Tensor:
    """Return t (B,), in 0..1000, of a call of ComfyUI's model."""
    return call["timesteps"].double() * MODELS[family].scale


def answer(family: str, model: Any, call: dict[str, Tensor]) -> Tensor:
    """Return the answer of diffusers' model to a call of ComfyUI's."""
    x = call["x"]
    noisy = x.squeeze(2) if x.dim() == 5 else x  # of a film, the frame
    packed = family == "flux2"  # there each 2 x 2 places are one, as the transformer has them
    if packed:
        noisy = torch.pixel_shuffle(noisy, 2)
    guidance = float(call["guidance"][0]) if "guidance" in call else 1.0
    found = FAMILIES[family].predict(
        model, noisy, t_of(family, call).float(), _conditioning(family, call), guidance
    )
    return (torch.pixel_unshuffle(found, 2) if packed else found).view_as(x)


def _conditioning(family: str, call: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what our family is told beside the latents."""
    text, pooled = call["context"], call.get("y")
    if family == "sdxl":
        assert pooled is not None
        size = [8 * side for side in call["x"].shape[-2:]]
        ids = torch.tensor([[*size, 0, 0, *size]]).float().expand(len(text), -1)
        return {"prompt_embeds": text, "text_embeds": pooled[:, :32], "time_ids": ids}
    if family == "krea2":
        rows = text.unflatten(-1, (12, -1))
        mask = torch.ones(text.shape[:2], dtype=torch.bool)
        return {"prompt_embeds": rows, "prompt_embeds_mask": mask}
    return {"prompt_embeds": text, **({} if pooled is None else {"pooled_projections": pooled})}
