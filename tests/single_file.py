"""Tiny models as single files in their original layouts, the ones people download.

`write_sdxl` writes the names of Stability AI's code (SGM): one file with the UNet, the VAE and both
text encoders, the second as open_clip has it. `write_flux` writes the names of Black Forest Labs:
the transformer alone. Both undo what diffusers does when it reads such files.

diffusers' FLUX converter has the width 3072 of the real model written into it, so it reads a tiny
file only inside `tiny_flux_converter`, which runs the same code with the tiny width.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any
from unittest import mock

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, UNet2DConditionModel
from diffusers.loaders import single_file_model
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

Tensors = dict[str, Tensor]
SDXL_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
FLUX_WIDTH = 3072

RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
VAE_ATTENTION = (
    ("group_norm", "norm"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "proj_out"),
)
OPEN_CLIP = (
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("final_layer_norm", "ln_final"),
    ("embeddings.token_embedding", "token_embedding"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
)
FLUX = (
    (r"^time_text_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
    (r"^time_text_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
    (r"^time_text_embed\.text_embedder\.linear_1", "vector_in.in_layer"),
    (r"^time_text_embed\.text_embedder\.linear_2", "vector_in.out_layer"),
    (r"^time_text_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer"),
    (r"^time_text_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer"),
    (r"^context_embedder", "txt_in"),
    (r"^x_embedder", "img_in"),
    (r"^proj_out", "final_layer.linear"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
    (r"^single_transformer_blocks\.", "single_blocks."),
    (r"^(single_blocks\.\d+)\.norm\.linear", r"\1.modulation.lin"),
    (r"^(single_blocks\.\d+)\.attn\.norm_q\.weight", r"\1.norm.query_norm.scale"),
    (r"^(single_blocks\.\d+)\.attn\.norm_k\.weight", r"\1.norm.key_norm.scale"),
    (r"^(single_blocks\.\d+)\.proj_out", r"\1.linear2"),
    (r"^transformer_blocks\.", "double_blocks."),
    (r"norm1\.linear", "img_mod.lin"),
    (r"norm1_context\.linear", "txt_mod.lin"),
    (r"attn\.norm_q\.weight", "img_attn.norm.query_norm.scale"),
    (r"attn\.norm_k\.weight", "img_attn.norm.key_norm.scale"),
    (r"attn\.norm_added_q\.weight", "txt_attn.norm.query_norm.scale"),
    (r"attn\.norm_added_k\.weight", "txt_attn.norm.key_norm.scale"),
    (r"attn\.to_out\.0", "img_attn.proj"),
    (r"attn\.to_add_out", "txt_attn.proj"),
    (r"ff\.net\.0\.proj", "img_mlp.0"),
    (r"ff\.net\.2", "img_mlp.2"),
    (r"ff_context\.net\.0\.proj", "txt_mlp.0"),
    (r"ff_context\.net\.2", "txt_mlp.2"),
)
FLUX_JOINED = (
    ("transformer_blocks", ("to_q", "to_k", "to_v"), r"double_blocks.\1.img_attn.qkv"),
    (
        "transformer_blocks",
        ("add_q_proj", "add_k_proj", "add_v_proj"),
        r"double_blocks.\1.txt_attn.qkv",
    ),
    (
        "single_transformer_blocks",
        ("to_q", "to_k", "to_v", "proj_mlp"),
        r"single_blocks.\1.linear1",
    ),
)
"""Blocks, layers that the original has as one, and its name."""


def write_sdxl(
    folder: Path,
    file: Path,
    parts: Collection[str] = SDXL_PARTS,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the pipeline of a diffusers folder as one file in SGM's names.

    Args:
        folder: of a StableDiffusionXLPipeline.
        file: the new .safetensors file.
        parts: which components it holds.
        dtype: of its tensors.
    """
    tensors: Tensors = {}
    if "unet" in parts:
        unet = _unet(UNet2DConditionModel.from_pretrained(folder, subfolder="unet", dtype=dtype))
        tensors |= _prefixed("model.diffusion_model.", unet)
    if "vae" in parts:
        vae = _vae(AutoencoderKL.from_pretrained(folder, subfolder="vae", dtype=dtype))
        tensors |= _prefixed("first_stage_model.", vae)
    if "text_encoder" in parts:
        clip = _clip(CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype))
        tensors |= _prefixed("conditioner.embedders.0.transformer.text_model.", clip)
    if "text_encoder_2" in parts:
        second = folder / "text_encoder_2"
        clip = _open_clip(CLIPTextModelWithProjection.from_pretrained(second, dtype=dtype))
        tensors |= _prefixed("conditioner.embedders.1.model.", clip)
    _save(tensors, file)


def write_flux(folder: Path, file: Path, prefix: str = "") -> None:
    """Write the transformer of a FluxPipeline folder in Black Forest Labs' names.

    Args:
        folder: of a FluxPipeline.
        file: the new .safetensors file.
        prefix: of every name; ComfyUI's files have `model.diffusion_model.`.
    """
    transformer = FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer")
    _save(_prefixed(prefix, _flux(transformer.state_dict())), file)


@contextmanager
def tiny_flux_converter(width: int) -> Iterator[None]:
    """Let diffusers read BFL files of this width (heads x head size) instead of 3072."""
    entry = single_file_model.SINGLE_FILE_LOADABLE_CLASSES["FluxTransformer2DModel"]
    original = entry["checkpoint_mapping_fn"]
    code = original.__code__
    assert code.co_consts.count(FLUX_WIDTH) == 1
    constants = tuple(width if value == FLUX_WIDTH else value for value in code.co_consts)
    converter = FunctionType(code.replace(co_consts=constants), original.__globals__)
    with mock.patch.dict(entry, checkpoint_mapping_fn=converter):
        yield


# --- SDXL -----------------------------------------------------------------------------------------


def _unet(unet: UNet2DConditionModel) -> Tensors:
    layers = unet.config.layers_per_block
    renamed = {}
    for name, tensor in unet.state_dict().items():
        new = re.sub(r"^time_embedding\.linear_1", "time_embed.0", name)
        new = re.sub(r"^time_embedding\.linear_2", "time_embed.2", new)
        new = re.sub(r"^add_embedding\.linear_1", "label_emb.0.0", new)
        new = re.sub(r"^add_embedding\.linear_2", "label_emb.0.2", new)
        new = re.sub(r"^conv_in", "input_blocks.0.0", new)
        new = re.sub(r"^conv_norm_out", "out.0", new)
        new = re.sub(r"^conv_out", "out.2", new)
        new = re.sub(r"^mid_block\.attentions\.0", "middle_block.1", new)
        new = re.sub(r"^mid_block\.resnets\.0", "middle_block.0", new)
        new = re.sub(r"^mid_block\.resnets\.1", "middle_block.2", new)
        if match := re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.", name):
            direction, block, kind, layer = match[1], int(match[2]), match[3], int(match[4])
            rest = name[match.end() :]
            down = direction == "down"
            number = block * (layers + 1) + layer + down
            slot = "1" if kind == "attentions" else "0"
            if kind == "downsamplers":
                number, rest = number + layers, rest.replace("conv", "op")
            elif kind == "upsamplers":
                number += layers
                slot = "2" if _has_attention(unet, block) else "1"
            new = f"{'input' if down else 'output'}_blocks.{number}.{slot}.{rest}"
        if re.search(r"resnets", name):
            for old, short in RESNET:
                new = re.sub(rf"\.{old}\.", f".{short}.", new)
        renamed[new] = tensor
    return renamed


def _has_attention(unet: UNet2DConditionModel, up_block: int) -> bool:
    return hasattr(unet.up_blocks[up_block], "attentions")


def _vae(vae: AutoencoderKL) -> Tensors:
    blocks = len(vae.config.block_out_channels)
    renamed = {}
    for name, tensor in vae.state_dict().items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        if match := re.search(r"up_blocks\.(\d+)\.", new):
            new = new.replace(match[0], f"up.{blocks - 1 - int(match[1])}.")
            new = new.replace("resnets", "block").replace("upsamplers.0", "upsample")
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        if "mid_block.attentions.0" in name:
            new = new.replace("mid_block.attentions.0", "mid.attn_1")
            for old, short in VAE_ATTENTION:
                new = new.replace(f".{old}.", f".{short}.")
            if tensor.ndim == 2:
                tensor = tensor[:, :, None, None]  # the original has 1 x 1 convolutions
        renamed[new] = tensor
    return renamed


def _clip(model: CLIPTextModel) -> Tensors:
    state = model.state_dict()
    tensors = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    length = tensors["embeddings.position_embedding.weight"].shape[0]
    return tensors | {"embeddings.position_ids": torch.arange(length)[None]}


def _open_clip(model: CLIPTextModelWithProjection) -> Tensors:
    state = {name.removeprefix("text_model."): value for name, value in model.state_dict().items()}
    renamed: Tensors = {"logit_scale": torch.tensor(4.6)}
    for name, tensor in state.items():
        if name == "text_projection.weight":
            renamed["text_projection"] = tensor.T
        elif match := re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(\w+)", name):
            joined = [state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            new = f"transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"
            renamed[new] = torch.cat(joined)
        elif not re.search(r"self_attn\.[kv]_proj", name):
            for old, short in OPEN_CLIP:
                name = name.replace(old, short)
            renamed[name] = tensor
    return renamed


# --- FLUX -----------------------------------------------------------------------------------------


def _flux(state: Tensors) -> Tensors:
    renamed: Tensors = {}
    left = dict(state)
    for blocks, layers, new in FLUX_JOINED:
        first = re.compile(rf"^{blocks}\.(\d+)\.attn\.{layers[0]}\.(weight|bias)$")
        for match in filter(None, map(first.match, state)):
            names = [match[0].replace(f"attn.{layers[0]}", f"attn.{layer}") for layer in layers]
            names = [name.replace("attn.proj_mlp", "proj_mlp") for name in names]
            renamed[f"{match.expand(new)}.{match[2]}"] = torch.cat([left.pop(n) for n in names])
    for name, tensor in left.items():
        new = name
        for pattern, replacement in FLUX:
            new = re.sub(pattern, replacement, new)
        if name.startswith("norm_out"):  # the original has shift before scale
            scale, shift = tensor.chunk(2)
            tensor = torch.cat([shift, scale])
        renamed[new] = tensor
    return renamed


def _prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _save(tensors: Tensors, file: Path) -> None:
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, file)


def assert_same(got: nn.Module, expected: nn.Module) -> None:
    """Assert that two models have the same tensors under the same names."""
    state, wanted = got.state_dict(), expected.state_dict()
    assert state.keys() == wanted.keys()
    different = [name for name in wanted if not torch.equal(state[name], wanted[name])]
    assert not different


def picture(pipeline: Any) -> Tensor:
    """Draw a small picture in two steps, (1, 3, 64, 64)."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        "a photo of a dog",
        width=64,
        height=64,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images
