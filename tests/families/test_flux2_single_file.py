"""FLUX.2's transformer as one file in Black Forest Labs' names, read by diffusers' converter."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from safetensors.torch import save_file
from torch import Tensor

from tlora_cli import UserError
from tlora_cli.families import FAMILIES
from tlora_cli.families.flux2 import FLUX2
from tlora_cli.families.loading import Base, load_pipeline

NORMS = {
    "norm_q": "img_attn.norm.query_norm",
    "norm_k": "img_attn.norm.key_norm",
    "norm_added_q": "txt_attn.norm.query_norm",
    "norm_added_k": "txt_attn.norm.key_norm",
}


def original(alias: str) -> str:
    """Return a name of `original_names` with the dots that stand in files."""
    alias = re.sub(r"(double|single)_blocks_(\d+)_", r"\1_blocks.\2.", alias)
    alias = re.sub(r"(img|txt)_(attn|mlp)_", r"\1_\2.", alias)
    alias = re.sub(r"^(time|guidance)_in_", r"\1_in.", alias)
    alias = re.sub(r"_lin$", ".lin", alias)
    return alias.replace("final_layer_adaLN_modulation_", "final_layer.adaLN_modulation.").replace(
        "final_layer_linear", "final_layer.linear"
    )


def in_one_file(transformer: Flux2Transformer2DModel) -> dict[str, Tensor]:
    state = transformer.state_dict()
    layers = [name.removesuffix(".weight") for name in state]
    found: dict[str, Tensor] = {}
    for alias, members in FLUX2.original_names(layers):
        if all(one in layers for one in members):
            weight = torch.cat([state.pop(f"{one}.weight") for one in members])
            turned = alias in FLUX2.turned_layers
            found[original(alias) + ".weight"] = (
                torch.cat(weight.chunk(2)[::-1]) if turned else weight
            ).contiguous()
    for name, weight in state.items():
        blocks, number, _, norm, _ = name.split(".")
        place = NORMS[norm] if blocks == "transformer_blocks" else NORMS[norm][len("img_attn.") :]
        theirs = "double_blocks" if blocks == "transformer_blocks" else "single_blocks"
        found[f"{theirs}.{number}.{place}.scale"] = weight
    return found


def test_a_single_file_is_the_folder(tiny_flux: Path, tiny_flux2: Path, tmp_path: Path) -> None:
    transformer = Flux2Transformer2DModel.from_pretrained(tiny_flux2, subfolder="transformer")
    file = tmp_path / "one.safetensors"
    save_file(in_one_file(transformer), file)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        base = Base(str(file), config=str(tiny_flux2))
        pipeline = load_pipeline(FLUX2, base, parts=("denoiser",))
    assert type(pipeline) is Flux2KleinPipeline
    found = pipeline.transformer.state_dict()
    assert found.keys() == transformer.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in transformer.state_dict().items())
    with pytest.raises(UserError, match="the file is another model"):
        load_pipeline(FAMILIES["flux"], Base(str(file), config=str(tiny_flux)), parts=())
