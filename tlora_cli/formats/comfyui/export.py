"""A folder for ComfyUI: the ranks as plain LoRAs, and a workflow that switches them on in time.

The mask only grows as t falls, so each slice of ranks is a LoRA that is off at first and on from
some point of the sampling. ComfyUI's hook keyframes do that without a custom node; they are given
in percent of the sampling, which the model's own noise schedule turns into a noise level.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from tlora_cli.families import FAMILIES, Family
from tlora_cli.families.facts import ComfyUI
from tlora_cli.formats.comfyui.workflow import Part, workflow
from tlora_cli.formats.headers import model_spec
from tlora_cli.formats.kohya import kohya_tensors
from tlora_cli.formats.slices import Slice, cut, slices_of
from tlora_cli.formats.spec import Format, Sizes
from tlora_cli.formats.weights import AdapterWeights, Pair
from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import folder_atomically, write_text

WORKFLOW = "workflow.json"
LATEST = 0.999
"""Largest start: ComfyUI's page rounds to thousandths, and what begins at 1 never begins."""
HIGHEST = 1000.0
"""Largest timestep that a model is sampled at."""


def write(folder: Path, weights: AdapterWeights, sizes: Sizes) -> list[str]:
    """Write the LoRAs and the workflow into a new folder; return what to know about them.

    Args:
        folder: the new folder; its name begins the files' names.
        weights: with family and schedule.
        sizes: outputs of the denoiser's linear layers and convolutions.

    Raises:
        UserError: for a schedule that slices can't show, or a family that tlora can't write a
            workflow for.
    """
    assert weights.schedule is not None
    family = FAMILIES[weights.family or ""]
    comfyui = family.comfyui
    if comfyui is None:
        raise UserError(
            f"how ComfyUI loads {family.title} is not known here", do="use --to diffusers"
        )
    slices = starts_of(weights.schedule, comfyui)
    header = {"format": "pt", **model_spec(weights)}
    name = folder.name
    parts = []
    with folder_atomically(folder) as unfinished:
        plain = f"{name}-plain.safetensors"
        save_file(
            _named(weights.layers, family, comfyui, sizes), unfinished / plain, metadata=header
        )
        for one, start in slices:
            file = f"{name}-ranks-{one.first + 1:03d}-{one.end:03d}.safetensors"
            layers = {
                layer: cut(pair, weights.copies, one) for layer, pair in weights.layers.items()
            }
            save_file(_named(layers, family, comfyui, sizes), unfinished / file, metadata=header)
            parts.append(Part(file, start))
        concept = weights.info.concept
        prompt = f"a photo of a {concept}" if concept else "a photo"
        told = json.dumps(workflow(comfyui, parts, prompt, _size(weights)), indent=1)
        write_text(unfinished / WORKFLOW, told + "\n")
    notes = [
        f"copy the .safetensors files into ComfyUI's models/loras and drop {WORKFLOW} onto its "
        "page; choose your checkpoint there",
        f"{plain} is the simple choice: one LoRA, all ranks at every timestep",
    ]
    if weights.schedule.axis is not None:
        notes.append("the workflow's times hold for the noise schedule of the adapter's base")
    return [*notes, comfyui.note] if comfyui.note else notes


def _size(weights: AdapterWeights) -> dict[str, int] | None:
    """Return the size that the adapter is drawn at by itself; None if its file doesn't say."""
    said = {key: weights.info.sampling.get(key) for key in ("width", "height")}
    known = {key: value for key, value in said.items() if isinstance(value, int) and value > 0}
    return known if len(known) == len(said) else None


def starts_of(schedule: RankSchedule, comfyui: ComfyUI) -> list[tuple[Slice, float | None]]:
    """Return the slices of a schedule, each with its start.

    A start is the percent (0..1) of the sampling from which on the slice acts; None: always.

    Raises:
        UserError: for a schedule that slices can't show.
    """

    def start(below: float) -> float:
        return min(comfyui.start_percent(min(below, HIGHEST)), LATEST)

    return [(one, None if one.below is None else start(one.below)) for one in slices_of(schedule)]


def _named(
    layers: Mapping[str, Pair], family: Family, comfyui: ComfyUI, sizes: Sizes
) -> dict[str, Tensor]:
    """Return the tensors in names that ComfyUI knows."""
    if not comfyui.peft_names:
        return kohya_tensors(layers, family, sizes)
    tensors = {}
    for name, (down, up) in layers.items():
        tensors[f"{family.denoiser}.{name}.lora_A.weight"] = down.float().contiguous()
        tensors[f"{family.denoiser}.{name}.lora_B.weight"] = up.float().contiguous()
    return tensors


COMFYUI = Format("comfyui", None, write, folder=True, slices=True)
