"""SD3's transformer as one file in Stability AI's names, read by diffusers' converter."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import save_file
from single_file import assert_same, picture
from torch import Tensor

from tlora_cli import UserError
from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.families.sd3 import SD3

OUTSIDE = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
IN_BLOCKS = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
TOGETHER = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
}


def in_one_file(transformer: SD3Transformer2DModel) -> dict[str, Tensor]:
    """Return its tensors as they stand in files of SD3.5, with shift before scale."""
    state = transformer.state_dict()
    last = f"transformer_blocks.{transformer.config.num_layers - 1}.norm1_context.linear"
    found: dict[str, Tensor] = {}
    for block in range(transformer.config.num_layers):
        for name, members in TOGETHER.items():
            for kind in ("weight", "bias"):
                parts = [f"transformer_blocks.{block}.{one}.{kind}" for one in members]
                if parts[0] in state:
                    found[f"joint_blocks.{block}.{name}.{kind}"] = torch.cat(
                        [state.pop(part) for part in parts]
                    )
    for name, value in state.items():
        layer = re.sub(r"\.(weight|bias)$", "", name)
        kind = name[len(layer) :]
        if layer in ("norm_out.linear", last):
            value = torch.cat(value.chunk(2)[::-1])
        if inner := re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", layer):
            found[f"joint_blocks.{inner[1]}.{IN_BLOCKS[inner[2]]}{kind}"] = value
        else:
            found[OUTSIDE[layer] + kind] = value
    return {name: value.contiguous() for name, value in found.items()}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_single_file_is_the_folder(tiny_sd3: Path, tmp_path: Path, prefix: str) -> None:
    transformer = SD3Transformer2DModel.from_pretrained(tiny_sd3, subfolder="transformer")
    file = tmp_path / "one.safetensors"
    save_file({prefix + name: value for name, value in in_one_file(transformer).items()}, file)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pipeline = load_pipeline(SD3, Base(str(file), config=str(tiny_sd3)))
    assert type(pipeline) is StableDiffusion3Pipeline
    assert_same(pipeline.transformer, transformer)
    stock = StableDiffusion3Pipeline.from_pretrained(tiny_sd3)
    assert torch.equal(picture(pipeline), picture(stock))


def test_it_is_refused_as_another_family(tiny_flux: Path, tiny_sd3: Path, tmp_path: Path) -> None:
    transformer = SD3Transformer2DModel.from_pretrained(tiny_sd3, subfolder="transformer")
    file = tmp_path / "one.safetensors"
    save_file(in_one_file(transformer), file)
    with pytest.raises(UserError, match="it is Stable Diffusion 3"):
        load_pipeline(FAMILIES["flux"], Base(str(file), config=str(tiny_flux)), parts=())
