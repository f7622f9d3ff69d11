"""The names that Stability AI's UNet gives its layers: its constructor's loops, walked again.

The original appends its blocks to one list a side; here each one is noted with what diffusers calls
it. Nothing of the program is used, so its formula can be held against it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

WITHIN = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_out": "out.2",
}


def sgm_names(config: Mapping[str, Any], layers: Collection[str]) -> dict[str, str]:
    """Return diffusers' name of each layer of a UNet -> the original's, both with dots."""
    blocks = _blocks(config)
    found = {}
    for layer in layers:
        for ours, theirs in blocks.items():
            if layer == ours:
                found[layer] = theirs
            elif layer.startswith(f"{ours}."):
                rest = layer.removeprefix(f"{ours}.")
                found[layer] = f"{theirs}.{WITHIN.get(rest, rest)}"
    return found


def _blocks(config: Mapping[str, Any]) -> dict[str, str]:
    levels, per_level = len(config["down_block_types"]), config.get("layers_per_block", 2)
    depths = [per_level] * levels if isinstance(per_level, int) else list(per_level)
    blocks, row = dict(OUTSIDE), 1
    for level, kind in enumerate(config["down_block_types"]):
        for index in range(depths[level]):
            blocks[f"down_blocks.{level}.resnets.{index}"] = f"input_blocks.{row}.0"
            if kind.startswith("CrossAttn"):
                blocks[f"down_blocks.{level}.attentions.{index}"] = f"input_blocks.{row}.1"
            row += 1
        if level != levels - 1:
            blocks[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{row}.0.op"
            row += 1
    middle = ("resnets.0", "attentions.0", "resnets.1")
    blocks |= {f"mid_block.{part}": f"middle_block.{n}" for n, part in enumerate(middle)}
    row = 0
    for level, kind in enumerate(config["up_block_types"]):
        place = 1
        for index in range(depths[-1 - level] + 1):
            blocks[f"up_blocks.{level}.resnets.{index}"] = f"output_blocks.{row}.0"
            if kind.startswith("CrossAttn"):
                blocks[f"up_blocks.{level}.attentions.{index}"] = f"output_blocks.{row}.1"
                place = 2
            row += 1
        if level != levels - 1:
            blocks[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{row - 1}.{place}.conv"
    return blocks


def kohya_stems(config: Mapping[str, Any], layers: Collection[str]) -> dict[str, str]:
    """Return diffusers' name of each layer -> the stem of its keys in kohya's files."""
    return {
        layer: "lora_unet_" + name.replace(".", "_")
        for layer, name in sgm_names(config, layers).items()
    }
