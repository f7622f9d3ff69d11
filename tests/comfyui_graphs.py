"""What ComfyUI does with a workflow of ours, as far as the hooks go, by its own formulas."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from adapter_files import UNET
from safetensors.torch import load_file
from sgm_names import kohya_stems
from torch import Tensor

SHIFTS = {
    "flux": math.exp(1.15),
    "flux2": math.exp(2.02),
    "z_image": 3.0,
    "qwen_image": math.exp(1.15),
    "sd3": 3.0,
    "krea2": math.exp(1.15),
}
"""Family -> factor of a noise level's odds, as ComfyUI 0.33.0 samples it if it is told nothing."""


def sdxl_sigma(timestep: float) -> float:
    """Return ComfyUI's noise level of a timestep of SDXL; between whole ones, linear in the log."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    levels = ((1 - kept) / kept).sqrt().log()
    timestep = min(max(timestep, 0.0), 999.0)
    low, high = math.floor(timestep), math.ceil(timestep)
    return float(torch.lerp(levels[low], levels[high], timestep - low).exp())


def noise_level(family: str, t: float) -> float:
    """Return the noise level that ComfyUI calls the model of a family with, at t."""
    return sdxl_sigma(t) if family == "sdxl" else t / 1000


def percent_to_level(family: str, percent: float) -> float:
    if percent <= 0:
        return math.inf if family == "sdxl" else 1.0
    if percent >= 1:
        return 0.0
    if family == "sdxl":
        return sdxl_sigma(999 * (1 - percent))
    return SHIFTS[family] / (SHIFTS[family] + 1 / (1 - percent) - 1)


class Comfy:
    """What ComfyUI's nodes do with a workflow, as far as the hooks go."""

    def __init__(self, folder: Path, family: str) -> None:
        self.family = family
        self.nodes = json.loads((folder / "workflow.json").read_text())
        self.files = {path.name: load_file(path) for path in folder.glob("*.safetensors")}

    def only(self, kind: str) -> dict[str, Any]:
        [node] = [node for node in self.nodes.values() if node["class_type"] == kind]
        inputs: dict[str, Any] = node["inputs"]
        return inputs

    def hooks(self, link: list[Any]) -> list[tuple[str, list[tuple[float, float]]]]:
        """Return (file, keyframes of (start percent, strength)) of a node's hooks."""
        node = self.nodes[link[0]]
        inputs = node["inputs"]
        if node["class_type"] == "CreateHookLoraModelOnly":
            return [(inputs["lora_name"], [])]
        if node["class_type"] == "SetHookKeyframes":
            frames = self.keyframes(inputs["hook_kf"])
            return [(file, frames) for file, _ in self.hooks(inputs["hooks"])]
        assert node["class_type"] == "CombineHooks8"
        assert set(inputs) <= {f"hooks_{letter}" for letter in "ABCDEFGH"}
        return [hook for part in inputs.values() for hook in self.hooks(part)]

    def keyframes(self, link: list[Any]) -> list[tuple[float, float]]:
        inputs = self.nodes[link[0]]["inputs"]
        before = self.keyframes(inputs["prev_hook_kf"]) if "prev_hook_kf" in inputs else []
        return sorted([*before, (inputs["start_percent"], inputs["strength_mult"])])

    def active(self, t: float) -> list[str]:
        """Return the files that act at t."""
        level, found = noise_level(self.family, t), []
        for file, frames in self.hooks(self.only("PairConditioningSetProperties")["hooks"]):
            strength = 1.0
            for percent, value in frames:
                if percent_to_level(self.family, percent) >= level:
                    strength = value
            assert strength in (0.0, 1.0)
            if strength:
                found.append(file)
        return found


def update_of(lora: dict[str, Tensor], family: str, layer: str) -> Tensor:
    """Return a LoRA's update of a layer, by the names and the scale of its format."""
    if family == "sdxl":
        [stem] = kohya_stems(UNET, [layer]).values()
        down, up = lora[f"{stem}.lora_down.weight"], lora[f"{stem}.lora_up.weight"]
        return float(lora[f"{stem}.alpha"]) / len(down) * (up.double() @ down.double())
    down, up = (lora[f"transformer.{layer}.lora_{x}.weight"].double() for x in "AB")
    return up @ down
