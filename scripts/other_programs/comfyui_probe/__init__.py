"""A node for ComfyUI: a small model of a true class with given weights, which records its calls.

`scripts/other_programs/comfyui.py` puts it into `custom_nodes`; it is no part of the product.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch
from comfy.ldm.flux.model import FluxParams
from safetensors.torch import load_file

WORK = Path(os.environ["TLORA_PROBE"])
_models: dict[str, Any] = {}


def _model(family: str) -> Any:
    """Return the patcher of a family's model; one for the whole process, as a loader keeps it."""
    if family not in _models:
        told = json.loads((WORK / family / "comfyui.json").read_text())
        weights = _renamed(load_file(WORK / family / "weights.safetensors"), told)
        if not told["kind"]:  # what UNETLoader itself does with a file's weights
            found = comfy.sd.load_diffusion_model_state_dict(weights, {"dtype": torch.float32})
            assert found is not None, f"ComfyUI does not know the weights of {family}"
        else:
            found = _made(told["kind"], told["there"], weights)
        found.model.diffusion_model.register_forward_hook(_record, with_kwargs=True)
        _models[family] = found
    return _models[family]


def _made(kind: str, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> Any:
    """Return the patcher of a model of a class, with a configuration that no loader finds."""
    if kind == "Flux":  # versions differ in what a model can be told
        known = {field.name for field in fields(FluxParams)} | {"image_model"}
        config = {name: value for name, value in config.items() if name in known}
    model_config = getattr(comfy.supported_models, kind)(config)
    model_config.set_inference_dtype(torch.float32, None)
    model = model_config.get_model({}, "", device=torch.device("cpu"))
    model.diffusion_model.load_state_dict(weights)
    model.diffusion_model.eval()
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, cpu, cpu)


def _renamed(weights: dict[str, torch.Tensor], told: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return weights in ComfyUI's names, where some are parts of others."""
    config = told["named"] or told["there"]
    names = getattr(comfy.utils, told["names"])(config) if told["names"] else {}
    found: dict[str, dict[int, torch.Tensor]] = {}
    for name, tensor in weights.items():
        target = names.get(name)
        if target is None:
            target = name
            for pattern, replacement in told["others"]:
                target = re.sub(pattern, replacement, target)
        key, part, turn, *_ = (*((target,) if isinstance(target, str) else target), None, None)
        tensor = tensor if turn is None else turn(tensor)
        found.setdefault(key, {})[part[1] if part else 0] = tensor
    whole = {key: torch.cat([parts[at] for at in sorted(parts)]) for key, parts in found.items()}
    return {key: one.flatten() if key.endswith(".mod.lin") else one for key, one in whole.items()}


def _record(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], answer: Any) -> None:
    names = ("x", "timesteps", "context", "y", "guidance")
    call = dict(zip(names[: len(args)], args, strict=True)) | kwargs
    kept = {name: call[name] for name in names if isinstance(call.get(name), torch.Tensor)}
    folder = WORK / "calls"
    folder.mkdir(exist_ok=True)
    number = len(list(folder.iterdir()))
    torch.save({**kept, "answer": answer}, folder / f"{number:04d}.pt")


class _Words:
    """Stands for CLIP: numbers that are a function of the text."""

    def __init__(self, family: str) -> None:
        told = json.loads((WORK / family / "comfyui.json").read_text())
        self.count, self.width, self.pooled = told["words"]

    def tokenize(self, text: str, **_: Any) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str, *_: Any, **__: Any) -> list[Any]:
        chance = torch.Generator().manual_seed(len(tokens))
        states = torch.randn(1, self.count, self.width, generator=chance)
        if self.pooled is None:
            return [[states, {}]]
        return [[states, {"pooled_output": torch.randn(1, self.pooled, generator=chance)}]]


class _Gray:
    """Stands for the VAE."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.full((len(latents), 64, 64, 3), 0.5)


class Checkpoint:
    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "load", ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"family": ("STRING", {"default": "sdxl"})}}

    def load(self, family: str) -> tuple[Any, ...]:
        return _model(family), _Words(family), _Gray()


class Denoiser(Checkpoint):
    RETURN_TYPES = ("MODEL",)

    def load(self, family: str) -> tuple[Any, ...]:
        return (_model(family),)


class Words(Checkpoint):
    RETURN_TYPES = ("CLIP",)

    def load(self, family: str) -> tuple[Any, ...]:
        return (_Words(family),)


class Gray(Checkpoint):
    RETURN_TYPES = ("VAE",)

    def load(self, family: str) -> tuple[Any, ...]:
        return (_Gray(),)


NODE_CLASS_MAPPINGS = {
    "ProbeCheckpoint": Checkpoint,
    "ProbeDenoiser": Denoiser,
    "ProbeWords": Words,
    "ProbeGray": Gray,
}
