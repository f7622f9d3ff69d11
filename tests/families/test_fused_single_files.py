"""Transformers as single files in ComfyUI's names, where layers of one input are one layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline

Tensors = dict[str, Tensor]


def z_image(state: Tensors) -> Tensors:
    """Return Z-Image's tensors as Lumina 2's code has them; it holds a norm that nobody reads."""
    found = {"norm_final.weight": torch.ones(32)}
    renamed = {
        "all_final_layer.2-1.": "final_layer.",
        "all_x_embedder.2-1.": "x_embedder.",
        ".attention.to_out.0.": ".attention.out.",
        ".attention.norm_k.": ".attention.k_norm.",
        ".attention.norm_q.": ".attention.q_norm.",
    }
    for name, value in state.items():
        if ".to_q." in name:
            parts = [state[name.replace(".to_q.", f".to_{one}.")] for one in "qkv"]
            found[name.replace(".to_q.", ".qkv.")] = torch.cat(parts)
        elif ".to_k." not in name and ".to_v." not in name:
            for ours, theirs in renamed.items():
                name = name.replace(ours, theirs)
            found[name] = value
    return found


def qwen_image_21(state: Tensors) -> Tensors:
    """Return Qwen-Image 2.1's tensors with the gate's rows before the projection's."""
    found = {}
    for name, value in state.items():
        if ".gate_layer." in name:
            up = state[name.replace(".gate_layer.", ".proj.")]
            found[name.replace(".gate_layer.", ".gate_up.")] = torch.cat([value, up])
        elif ".img_mlp.proj." not in name:
            found[name] = value
    return found


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("written", [z_image, qwen_image_21])
def test_a_single_file_is_the_folder(
    written: Callable[[Tensors], Tensors],
    prefix: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    family = FAMILIES[written.__name__]
    folder: Path = request.getfixturevalue(f"tiny_{family.name}")
    state = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    file = tmp_path / "one.safetensors"
    save_file({prefix + name: value for name, value in written(state).items()}, file)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        base = Base(str(file), config=str(folder))
        found = load_pipeline(family, base, parts=("denoiser",)).transformer.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.parametrize("written", [z_image, qwen_image_21])
def test_a_file_in_diffusers_names_is_the_folder(
    written: Callable[[Tensors], Tensors], request: pytest.FixtureRequest
) -> None:
    family = FAMILIES[written.__name__]
    folder: Path = request.getfixturevalue(f"tiny_{family.name}")
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    base = Base(str(file), config=str(folder))
    found = load_pipeline(family, base, parts=("denoiser",)).transformer.state_dict()
    state = load_file(file)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())
