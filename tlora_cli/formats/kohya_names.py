"""kohya's layer names -> the layers of the diffusers denoiser.

Three namings occur: diffusers' own with underscores; for SDXL the original model's blocks
(`input_blocks_4_1_...`); for FLUX the original model's, where q, k and v are one layer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_DOUBLE = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_proj": ("attn.to_out.0",),
    "img_mlp_0": ("ff.net.0.proj",),
    "img_mlp_2": ("ff.net.2",),
    "img_mod_lin": ("norm1.linear",),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn_proj": ("attn.to_add_out",),
    "txt_mlp_0": ("ff_context.net.0.proj",),
    "txt_mlp_2": ("ff_context.net.2",),
    "txt_mod_lin": ("norm1_context.linear",),
}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_lin": ("norm.linear",),
}
_FLUX_BLOCKS = (
    ("double_blocks", "transformer_blocks", _DOUBLE),
    ("single_blocks", "single_transformer_blocks", _SINGLE),
)
_FLUX_OUTSIDE = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in_in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in_out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in_in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in_out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in_in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in_out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer_linear": "proj_out",
}
PARTS_OF_ROWS = {"proj_mlp": 4}
"""Outputs of a layer in a fused one, in units of the model's width; 1 unless listed."""

_SDXL_OUTSIDE = {
    "time_embed_0": "time_embedding.linear_1",
    "time_embed_2": "time_embedding.linear_2",
    "label_emb_0_0": "add_embedding.linear_1",
    "label_emb_0_2": "add_embedding.linear_2",
}


def known_names(layer_names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return every name kohya could use -> the layers it means, of this denoiser.

    Args:
        layer_names: the denoiser's linear layers.
    """
    present = set(layer_names)
    names: dict[str, tuple[str, ...]] = {name.replace(".", "_"): (name,) for name in layer_names}
    for alias, layers in (*_flux(present), *_sdxl(present)):
        if present.issuperset(layers):
            names[alias] = layers
    return names


def _flux(present: set[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for theirs, ours, table in _FLUX_BLOCKS:
        numbers = {name.split(".")[1] for name in present if name.startswith(f"{ours}.")}
        for number in numbers:
            for alias, layers in table.items():
                full = tuple(f"{ours}.{number}.{layer}" for layer in layers)
                yield f"{theirs}_{number}_{alias}", full
    for alias, layer in _FLUX_OUTSIDE.items():
        yield alias, (layer,)


def _sdxl(present: set[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The original UNet numbers its blocks in one row: each resnet, then each up or downsampler."""
    resnets = [re.match(r"down_blocks\.0\.resnets\.(\d+)\.", name) for name in present]
    per_block = max((int(match[1]) for match in resnets if match), default=1) + 2
    for name in present:
        match = re.match(r"(down|up)_blocks\.(\d+)\.(attentions|resnets)\.(\d+)\.(.+)", name)
        if match:
            side, block, kind, index, rest = match.groups()
            number = int(block) * per_block + int(index) + (side == "down")
            stem = f"{'input' if side == 'down' else 'output'}_blocks_{number}"
            yield _sdxl_alias(stem, 1 if kind == "attentions" else 0, rest), (name,)
        match = re.match(r"mid_block\.(attentions|resnets)\.(\d+)\.(.+)", name)
        if match:
            kind, index, rest = match.groups()
            place = 1 if kind == "attentions" else 2 * int(index)
            yield _sdxl_alias("middle_block", place, rest), (name,)
    for alias, layer in _SDXL_OUTSIDE.items():
        yield alias, (layer,)


def _sdxl_alias(stem: str, place: int, rest: str) -> str:
    return f"{stem}_{place}_" + rest.replace("time_emb_proj", "emb_layers_1").replace(".", "_")
