"""A node for ComfyUI: a small model of a true class with given weights, which records its calls.

`scripts/other_programs/comfyui.py` puts it into `custom_nodes`; it is no part of the product.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.model_patcher
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
        config = json.loads((WORK / family / "comfyui.json").read_text())
        weights = load_file(WORK / family / "weights.safetensors")
        kind = {"sdxl": "SDXL", "flux": "Flux"}[family]
        if family == "flux":  # versions differ in what a model can be told
            known = {field.name for field in fields(FluxParams)} | {"image_model"}
            config = {name: value for name, value in config.items() if name in known}
        model_config = getattr(comfy.supported_models, kind)(config)
        model_config.set_inference_dtype(torch.float32, None)
        model = model_config.get_model({}, "", device=torch.device("cpu"))
        if family == "sdxl":
            names = comfy.utils.unet_to_diffusers(config)
            named = {names[key]: tensor for key, tensor in weights.items()}
        else:
            named = comfy.model_detection.convert_diffusers_mmdit(dict(weights))
        model.diffusion_model.load_state_dict(named)
        model.diffusion_model.eval()
        model.diffusion_model.register_forward_hook(_record, with_kwargs=True)
        cpu = torch.device("cpu")
        _models[family] = comfy.model_patcher.ModelPatcher(model, cpu, cpu)
    return _models[family]


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
        self.width, self.pooled, self.count = (64, 32, 77) if family == "sdxl" else (64, 32, 16)

    def tokenize(self, text: str, **_: Any) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str, *_: Any, **__: Any) -> list[Any]:
        chance = torch.Generator().manual_seed(len(tokens))
        states = torch.randn(1, self.count, self.width, generator=chance)
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
