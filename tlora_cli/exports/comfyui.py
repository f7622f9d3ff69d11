"""A folder for ComfyUI: the ranks as plain LoRAs, and a workflow that switches them on in time.

The mask only grows as t falls, so each slice of ranks is a LoRA that is off at first and on from
some point of the sampling. ComfyUI's hook keyframes do that without a custom node; they are given
in percent of the sampling, which the model's own noise schedule turns into a noise level.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from tlora_cli.exports.headers import model_spec
from tlora_cli.exports.kohya import kohya_tensors
from tlora_cli.exports.slices import cut, slices_of
from tlora_cli.exports.workflow import Part, workflow
from tlora_cli.formats import AdapterWeights
from tlora_cli.formats.weights import Pair
from tlora_cli.foundation.files import folder_atomically, write_text

WORKFLOW = "workflow.json"
FLUX_SHIFT = 1.15
"""ComfyUI's default shift of FLUX.1-dev."""


def write(folder: Path, weights: AdapterWeights, sizes: Mapping[str, int]) -> list[str]:
    """Write the LoRAs and the workflow into a new folder; return what to know about them.

    Args:
        folder: the new folder; its name begins the files' names.
        weights: with family and schedule.
        sizes: outputs of the denoiser's linear layers.

    Raises:
        UserError: for a schedule that slices can't show.
    """
    assert weights.schedule is not None
    family = weights.family or ""
    slices = slices_of(weights.schedule)
    header = {"format": "pt", **model_spec(weights)}
    name = folder.name
    parts = []
    with folder_atomically(folder) as unfinished:
        plain = f"{name}-plain.safetensors"
        save_file(_named(weights.layers, family, sizes), unfinished / plain, metadata=header)
        for one in slices:
            file = f"{name}-ranks-{one.first + 1:03d}-{one.end:03d}.safetensors"
            layers = {
                layer: cut(pair, weights.copies, one) for layer, pair in weights.layers.items()
            }
            save_file(_named(layers, family, sizes), unfinished / file, metadata=header)
            parts.append(
                Part(file, None if one.below is None else start_percent(family, one.below))
            )
        prompt = f"a photo of a {weights.info.concept}".rstrip()
        told = json.dumps(workflow(family, parts, prompt), indent=1)
        write_text(unfinished / WORKFLOW, told + "\n")
    notes = [
        f"copy the .safetensors files into ComfyUI's models/loras and drop {WORKFLOW} onto its "
        "page; choose your checkpoint there",
        f"{plain} is the simple choice: one LoRA, all ranks at every timestep",
    ]
    if family == "flux":
        notes.append(f"the workflow's times hold for ComfyUI's default shift, {FLUX_SHIFT}")
    return notes


def start_percent(family: str, below: float) -> float:
    """Return from which percent (0..1) of the sampling on t <= below, in ComfyUI's terms.

    Args:
        family: `sdxl`: percent p is timestep 999 (1 - p) of the noise schedule. `flux`: p is the
            noise level of 1 - p, shifted.
        below: on the 0..1000 scale.
    """
    t = min(below, 1000.0)
    if family == "sdxl":
        return min(max(1 - t / 999, 0.0), 1.0)
    level, shift = t / 1000, math.exp(FLUX_SHIFT)
    return shift * (1 - level) / (level + shift * (1 - level))


def _named(layers: Mapping[str, Pair], family: str, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Return the tensors in names that ComfyUI knows.

    FLUX has diffusers' names: kohya's would fuse queries, keys and values at three times the rank.
    """
    if family != "flux":
        return kohya_tensors(layers, family, sizes)
    tensors = {}
    for name, (down, up) in layers.items():
        tensors[f"transformer.{name}.lora_A.weight"] = down.float().contiguous()
        tensors[f"transformer.{name}.lora_B.weight"] = up.float().contiguous()
    return tensors
