"""The names of an SDXL UNet's layers in Stability AI's code (SGM), with underscores.

diffusers counts blocks, and in each of them its parts. The original numbers the residual blocks and
the downsamplers of each side in one row. With n[b] residual blocks in block b:

    down_blocks.b, part i:      input_blocks_(1 + sum of (n[a] + 1) for a < b, + i)
    its downsampler:            i = n[b]
    up_blocks.b, part i:        output_blocks_(sum of n[a] for a < b, + i)
    its upsampler:              behind the last residual block, i = n[b] - 1

Input block 0 is the first convolution. Within a number, the residual block is place 0, the
attention place 1, and an upsampler the next one. kohya's sd-scripts (library/sdxl_original_unet.py)
and ComfyUI have the same names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator

OUTSIDE_BLOCKS = {
    "time_embed_0": "time_embedding.linear_1",
    "time_embed_2": "time_embedding.linear_2",
    "label_emb_0_0": "add_embedding.linear_1",
    "label_emb_0_2": "add_embedding.linear_2",
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
}
"""Name in the original model -> layer, outside of the numbered blocks."""
IN_RESNETS = {
    "conv1": "in_layers_2",
    "conv2": "out_layers_3",
    "time_emb_proj": "emb_layers_1",
    "conv_shortcut": "skip_connection",
}
"""Layer of a residual block -> name in the original model."""
STANDARD = {"down": 2, "up": 3}
"""Residual blocks of each block of SDXL, where the given names don't tell."""

_PART = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)")
_SAMPLER = re.compile(r"(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.conv")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def original_names(layer_names: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the original UNet's name of each layer, with the layer.

    Args:
        layer_names: all linear layers and convolutions of a UNet, in diffusers' names.
    """
    parts = {name: found for name in layer_names if (found := _PART.fullmatch(name))}
    counts: defaultdict[tuple[str, int], int] = defaultdict(int)
    attentive = set()
    for side, block, kind, index, _ in (found.groups() for found in parts.values()):
        if kind == "resnets":
            counts[side, int(block)] = max(counts[side, int(block)], int(index) + 1)
        else:
            attentive.add((side, int(block)))

    def count(side: str, block: int) -> int:
        return counts.get((side, block), STANDARD[side])

    def number(side: str, block: int, index: int) -> str:
        down = side == "down"
        before = sum(count(side, lower) + down for lower in range(block))
        return f"{'input' if down else 'output'}_blocks_{before + index + down}"

    for name in layer_names:
        if found := parts.get(name):
            side, block, kind, index, rest = found.groups()
            stem = number(side, int(block), int(index))
            yield _within(stem, int(kind == "attentions"), rest), (name,)
        elif found := _MIDDLE.fullmatch(name):
            kind, index, rest = found.groups()
            place = 1 if kind == "attentions" else 2 * int(index)
            yield _within("middle_block", place, rest), (name,)
        elif found := _SAMPLER.fullmatch(name):
            side, block = found[1], int(found[2])
            last = count(side, block)
            if side == "down":
                yield f"{number(side, block, last)}_0_op", (name,)
            else:
                place = 1 + ((side, block) in attentive)
                yield f"{number(side, block, last - 1)}_{place}_conv", (name,)
    for alias, layer in OUTSIDE_BLOCKS.items():
        yield alias, (layer,)


def _within(stem: str, place: int, rest: str) -> str:
    return f"{stem}_{place}_" + IN_RESNETS.get(rest, rest).replace(".", "_")
