"""SDXL's layers in kohya's files have the names of Stability AI's UNet, which sd-scripts wants."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import UNET, convert, random_adapter, write_bases
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sgm_names import kohya_stems, sgm_names
from torch import nn

from tlora_cli import RankSchedule
from tlora_cli.families.sdxl import SDXL
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.formats import AdapterInfo, AdapterWeights, read_adapter, tlora_file
from tlora_cli.formats.kohya_names import known_names
from tlora_cli.injection.load import matrix_layers
from tlora_cli.toyworld.bundle import BUNDLE

TOY = BUNDLE.models / "toy-sdxl" / "unet"
UNEVEN: dict[str, Any] = {**UNET, "layers_per_block": (1, 3)}
DEEP: dict[str, Any] = {
    **UNET,
    "block_out_channels": (32, 32, 32, 64),
    "down_block_types": ("DownBlock2D",) * 2 + ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
    "transformer_layers_per_block": 1,
}
UNETS: dict[str, Any] = {
    "true": SDXL.standard_denoiser,
    "toy": UNet2DConditionModel.load_config(TOY),
    "small": UNET,
    "deep": DEEP,
    "uneven": UNEVEN,
}


def unet_of(name: str) -> nn.Module:
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(UNETS[name])


@pytest.mark.parametrize("name", ["true", "toy", "small"])
def test_the_table_here_is_that_of_diffusers(name: str) -> None:
    """What reads original checkpoints in diffusers puts each weight where the table says."""
    model = unet_of(name)
    theirs = sgm_names(model.config, list(matrix_layers(model)))
    checkpoint = {
        f"model.diffusion_model.{sgm}.{part}": torch.tensor([[[number]]])
        for number, sgm in enumerate(theirs.values())
        for part in ("weight", "bias")
    }
    found = convert_ldm_unet_checkpoint(checkpoint, model.config)
    layers = {
        int(tensor): key.removesuffix(".weight")
        for key, tensor in found.items()
        if key.endswith(".weight")
    }
    assert [layers[number] for number in range(len(theirs))] == list(theirs)


@pytest.mark.parametrize("name", UNETS)
def test_every_layer_has_the_original_s_name(name: str) -> None:
    """Linear layers and convolutions, however many levels and blocks the UNet has."""
    model = unet_of(name)
    layers = list(matrix_layers(model))
    theirs = {
        layer: sgm.replace(".", "_") for layer, sgm in sgm_names(model.config, layers).items()
    }
    assert set(theirs) == set(layers)
    assert len(set(theirs.values())) == len(layers)
    found = {layer: alias for alias, (layer,) in SDXL.original_names(layers)}
    assert {layer: found.get(layer) for layer in layers} == theirs
    known = known_names(layers)
    assert all(known[alias] == (layer,) for layer, alias in theirs.items())


def test_the_true_sdxl_is_written_in_the_names_of_sd_scripts(tmp_path: Path) -> None:
    """Every layer that kohya's trainer reaches, with convolutions; each with its own factors."""
    model = meta_denoiser("sdxl")
    layers = {}
    for number, (name, layer) in enumerate(SDXL.target_layers(model, "all").items(), start=1):
        out, *inner = layer.weight.shape
        up = torch.full((out, 1, *[1 for _ in inner[1:]]), float(number))
        layers[name] = (torch.ones(1, *inner), up)
    info = AdapterInfo(method="lora")
    weights = AdapterWeights(layers, 1, RankSchedule(1, 1, kind="constant"), "sdxl", info)
    source, there = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    tlora_file.write(source, weights, timestep_scale=1.0)
    convert(source, "--to", "kohya", "--output", there)
    tensors = load_file(there)
    stems = kohya_stems(model.config, list(layers))
    assert {key.partition(".")[0] for key in tensors} == set(stems.values())
    for name, (down, up) in layers.items():
        assert torch.equal(tensors[f"{stems[name]}.lora_up.weight"], up), name
        assert tensors[f"{stems[name]}.lora_down.weight"].shape == down.shape, name
    of_transformers = [name for name in layers if ".transformer_blocks." in name]
    assert len(of_transformers) == 70 * 10
    for name in (
        "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj",
        "up_blocks.1.upsamplers.0.conv",
        "mid_block.resnets.1.time_emb_proj",
    ):
        assert name in stems
    assert {
        "lora_unet_input_blocks_8_1_transformer_blocks_9_ff_net_0_proj",
        "lora_unet_output_blocks_5_2_conv",
        "lora_unet_middle_block_2_emb_layers_1",
    } <= set(stems.values())
    with safe_open(there, "pt") as file:
        assert file.metadata()["ss_base_model_version"] == "sdxl_base_v1-0"


def test_files_in_diffusers_names_are_still_read(tmp_path: Path) -> None:
    """Those that tlora wrote before have them."""
    base, source = write_bases(tmp_path / "bases")["sdxl"], tmp_path / "ours.safetensors"
    weights = random_adapter(source, "sdxl", targets="all")
    there = tmp_path / "kohya.safetensors"
    convert(source, "--to", "kohya", "--base", base, "--output", there)
    layers = matrix_layers(unet_of("small"))
    stems = kohya_stems(UNETS["small"], list(weights.layers))
    tensors = load_file(there)
    assert not any(re.match("lora_unet_(down|up|mid)_block", key) for key in tensors)
    old = {}
    for layer, stem in stems.items():
        for part in ("lora_down.weight", "lora_up.weight", "alpha"):
            old[f"lora_unet_{layer.replace('.', '_')}.{part}"] = tensors[f"{stem}.{part}"]
    save_file(old, tmp_path / "old.safetensors")
    new, before = read_adapter(there, layers), read_adapter(tmp_path / "old.safetensors", layers)
    assert new.layers.keys() == before.layers.keys() == weights.layers.keys()
    for layer, pair in new.layers.items():
        assert all(map(torch.equal, pair, before.layers[layer])), layer
