"""Denoisers of a few layers with their inputs, and what tests do with an adapter on them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

from tlora_cli import Adapter, attach
from tlora_cli.injection.changes import OtherWeights
from tlora_cli.methods import METHODS

REFERENCE = Path(__file__).parent / "reference"
RANK, MIN_RANK, BLOCKS = 8, 3, 4
ON_LAYERS = [name for name, method in METHODS.items() if not method.word]
"""Methods that learn no word; those that do are in tests/methods/test_words.py."""


def make_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    case = json.loads((REFERENCE / "sdxl_lora_none" / "case.json").read_text())
    return UNet2DConditionModel.from_config(case["unet_config"]).eval()


def make_transformer() -> FluxTransformer2DModel:
    torch.manual_seed(0)
    case = json.loads((REFERENCE / "flux_lora" / "case.json").read_text())
    return FluxTransformer2DModel.from_config(case["transformer_config"]).eval()


def unet_inputs(batch: int, seed: int = 0) -> dict[str, Any]:
    chance = torch.Generator().manual_seed(seed)
    return {
        "sample": torch.randn(batch, 4, 16, 16, generator=chance),
        "encoder_hidden_states": torch.randn(batch, 7, 24, generator=chance),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(batch, 32, generator=chance),
            "time_ids": torch.full((batch, 6), 64.0),
        },
    }


def flux_inputs(batch: int, seed: int = 0) -> dict[str, Any]:
    chance = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(batch, 16, 16, generator=chance),
        "encoder_hidden_states": torch.randn(batch, 7, 24, generator=chance),
        "pooled_projections": torch.randn(batch, 32, generator=chance),
        "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(7, 3),
        "guidance": torch.ones(batch),
    }


FAMILIES = {
    "sdxl": (make_unet, unet_inputs, 1.0),
    "flux": (make_transformer, flux_inputs, 1000.0),
}


def rows(inputs: dict[str, Any], index: int) -> dict[str, Any]:
    """Return one sample of the inputs; ids are shared by all."""
    return {
        key: value
        if key.endswith("_ids") and key != "time_ids"
        else rows(value, index)
        if isinstance(value, dict)
        else value[index : index + 1]
        for key, value in inputs.items()
    }


def put(model: nn.Module, method: str, min_rank: int | None = None) -> Adapter:
    """Attach a method at a size that fits the small models."""
    return attach(model, method, RANK, min_rank, blocks=BLOCKS)


def stir(adapter: Adapter, size: float = 0.3) -> Adapter:
    """Move the parameters as if trained."""
    chance = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter += size * torch.randn(parameter.shape, generator=chance)
    return adapter


def call(model: nn.Module, inputs: dict[str, Any], t: Any, family: str) -> Tensor:
    """Call the denoiser at t on the 0..1000 scale."""
    t = t if FAMILIES[family][2] == 1.0 else torch.as_tensor(t).reshape(-1).float() / 1000
    if family == "flux" and len(t) == 1:
        t = t.expand(inputs["hidden_states"].shape[0])
    return model(timestep=t, **inputs, return_dict=False)[0]


def merged(model: nn.Module, adapter: Adapter, rank: int) -> nn.Module:
    """Return a copy of the bare model with the first `rank` components added to its weights."""
    bare = copy.deepcopy(model).double()
    for module in bare.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    modules = dict(bare.named_modules())
    for name, layer in adapter.layers.items():
        if isinstance(layer, OtherWeights):
            own = dict(modules[name].named_parameters(recurse=False))
            with torch.no_grad():
                made = copy.deepcopy(layer).double().weights(own)
            for part, tensor in made.items():
                own[part].data = tensor
            continue
        down, up = (x.detach().double() for x in layer.factors())
        keep = [c * layer.rank + k for c in range(layer.copies) for k in range(rank)]
        weight = modules[name].weight
        weight.data += (up[:, keep] @ down[keep]).view_as(weight)
    return bare


def in_double(inputs: dict[str, Any]) -> dict[str, Any]:
    return {k: in_double(v) if isinstance(v, dict) else v.double() for k, v in inputs.items()}


def close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-9))
