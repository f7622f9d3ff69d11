"""Convolutions and feed-forward layers in every file: the update that went in, to a millionth."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from adapter_files import (
    LOW_RANK,
    RANK,
    UNET,
    active,
    close,
    convert,
    denoiser,
    masked_update,
    random_adapter,
    write_bases,
)
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import convert_unet_state_dict_to_peft
from lora_files import NAMES, by_diffusers, model_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sgm_names import kohya_stems
from torch import Tensor, nn

from tlora_cli import RankSchedule, UserError
from tlora_cli.families.sdxl import SDXL
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.formats import read_adapter
from tlora_cli.formats.kohya_names import known_names
from tlora_cli.injection.load import matrix_layers

CONVOLUTION = "down_blocks.1.resnets.0.conv1"
SINGLE = "down_blocks.1.resnets.0.conv_shortcut"
LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bases(tmp_path_factory.mktemp("bases"))["sdxl"]


def product(tensors: dict[str, Tensor], down: str, up: str) -> Tensor:
    """Return up down in float64, with a convolution's weights flattened."""
    return tensors[up].double().flatten(1) @ tensors[down].double().flatten(1)


@pytest.mark.parametrize("method", LOW_RANK)
@pytest.mark.parametrize("target", ["tlora", "diffusers", "kohya"])
def test_there_and_back(target: str, method: str, base: Path, tmp_path: Path) -> None:
    source, there = tmp_path / "ours.safetensors", tmp_path / f"{target}.safetensors"
    weights = random_adapter(source, "sdxl", method, targets="all")
    convert(source, "--to", target, "--base", base, "--output", there)
    tensors, width = load_file(there), RANK * weights.copies
    down, up = NAMES["kohya" if target == "kohya" else "peft"]
    down, up = f"{{}}.{down}.weight", f"{{}}.{up}.weight"
    names = {layer: f"unet.{layer}" for layer in weights.layers}
    if target == "kohya":
        names = kohya_stems(UNET, list(weights.layers))
    for layer, name in names.items():
        found = product(tensors, down.format(name), up.format(name))
        assert close(found, masked_update(weights, layer, 0)), layer
    name = names[CONVOLUTION]
    assert tensors[down.format(name)].shape == (width, 32, 3, 3)
    assert tensors[up.format(name)].shape == (64, width, 1, 1)
    back = tmp_path / "back.safetensors"
    convert(there, "--base", base, "--output", back)
    again = read_adapter(back, matrix_layers(denoiser("sdxl")))
    assert again.layers.keys() == weights.layers.keys()
    for layer in weights.layers:
        assert again.layers[layer][0].shape[1:] == weights.layers[layer][0].shape[1:]
        assert close(masked_update(again, layer, 0), masked_update(weights, layer, 0)), layer


def test_kohya_s_header_says_that_there_are_convolutions(base: Path, tmp_path: Path) -> None:
    for targets, expected in (("all", {"conv_dim": "6", "conv_alpha": "6"}), ("linear", None)):
        source, there = tmp_path / "ours.safetensors", tmp_path / f"{targets}.safetensors"
        random_adapter(source, "sdxl", "lora", targets=targets)
        convert(source, "--to", "kohya", "--base", base, "--output", there)
        with safe_open(there, "pt") as file:
            assert json.loads(file.metadata().get("ss_network_args", "null")) == expected


@pytest.mark.parametrize("target", ["tlora", "diffusers", "kohya"])
def test_stock_diffusers_puts_the_same_update_into_its_weights(
    target: str, base: Path, tmp_path: Path
) -> None:
    source, there = tmp_path / "ours.safetensors", tmp_path / "there.safetensors"
    weights = random_adapter(source, "sdxl", targets="all")
    convert(source, "--to", target, "--base", base, "--output", there)
    unet = UNet2DConditionModel(**UNET)
    before = {name: p.detach().clone() for name, p in unet.named_parameters()}
    state, alphas, metadata = StableDiffusionXLPipeline.lora_state_dict(
        there, unet_config=unet.config, return_lora_metadata=True
    )
    StableDiffusionXLPipeline.load_lora_into_unet(state, alphas, unet, metadata=metadata)
    unet.fuse_lora()
    fused = dict(unet.named_parameters())
    for layer in weights.layers:
        change = fused[f"{layer}.base_layer.weight"].double() - before[f"{layer}.weight"].double()
        assert (change.flatten(1) - masked_update(weights, layer, 0)).abs().max() < 1e-4, layer


@pytest.mark.parametrize("method", ["lora", "tlora", "vanilla_tlora"])
def test_comfyui_s_slices_are_the_masked_update(method: str, base: Path, tmp_path: Path) -> None:
    source, folder = tmp_path / "ours.safetensors", tmp_path / "comfy"
    schedule = RankSchedule(RANK, 2)
    weights = random_adapter(source, "sdxl", method, schedule, targets="all")
    convert(source, "--to", "comfyui", "--base", base, "--output", folder)
    slices = {}
    for file in folder.glob("*-ranks-*.safetensors"):
        first = int(re.search(r"ranks-(\d+)-", file.name)[1]) - 1  # type: ignore[index]
        slices[first] = load_file(file)
    assert weights.schedule is not None
    for t in (0.0, 450.0, 999.0):
        rank = active(weights.schedule, t)
        for layer in (CONVOLUTION, SINGLE, "down_blocks.1.resnets.0.time_emb_proj"):
            [stem] = kohya_stems(UNET, [layer]).values()
            found = [
                product(tensors, f"{stem}.lora_down.weight", f"{stem}.lora_up.weight")
                for first, tensors in slices.items()
                if first < rank
            ]
            total = torch.stack(found).sum(0)
            assert (total - masked_update(weights, layer, t)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("lycoris", r"another form for convolutions(.|\n)*--to kohya"),
        ("published", r"this adapter also has(.|\n)*--to tlora or kohya"),
    ],
)
def test_formats_without_a_place_for_them_say_so(
    target: str, message: str, base: Path, tmp_path: Path
) -> None:
    source = tmp_path / "ours.safetensors"
    there = tmp_path / ("there" if target == "published" else "there.safetensors")
    random_adapter(source, "sdxl", targets="all")
    with pytest.raises(UserError, match=message):
        convert(source, "--to", target, "--base", base, "--output", there)
    assert not there.exists()


def test_lycoris_holds_feed_forward_layers(tmp_path: Path) -> None:
    bases = write_bases(tmp_path / "bases")
    for family in ("sdxl", "flux"):
        source, there = tmp_path / f"{family}.safetensors", tmp_path / f"{family}-l.safetensors"
        weights = random_adapter(source, family, targets="linear")
        convert(source, "--to", "lycoris", "--base", bases[family], "--output", there)
        again = read_adapter(there, matrix_layers(denoiser(family)))
        assert again.layers.keys() == weights.layers.keys()
        for layer, (down, up) in again.layers.items():
            found = up.double() @ down.double()
            assert close(found, masked_update(weights, layer, 0)), layer


@pytest.mark.parametrize("target", ["tlora", "diffusers", "kohya", "comfyui"])
def test_flux_holds_feed_forward_and_modulation_there_and_back(target: str, tmp_path: Path) -> None:
    place = write_bases(tmp_path / "bases")["flux"]
    source, there = tmp_path / "ours.safetensors", tmp_path / f"{target}.safetensors"
    weights = random_adapter(source, "flux", targets="all")
    assert "single_transformer_blocks.1.proj_out" in weights.layers
    if target == "comfyui":
        convert(source, "--to", target, "--base", place, "--output", tmp_path / "comfy")
        there = tmp_path / "comfy" / "comfy-plain.safetensors"
    else:
        convert(source, "--to", target, "--base", place, "--output", there)
    again = read_adapter(there, matrix_layers(denoiser("flux")))
    assert again.layers.keys() == weights.layers.keys()
    for layer, (down, up) in again.layers.items():
        assert close(up.double() @ down.double(), masked_update(weights, layer, 0)), layer


def test_the_original_names_of_the_true_sdxl_are_those_of_diffusers() -> None:
    """diffusers' own renaming, of every layer that `all` reaches."""
    model = meta_denoiser("sdxl")
    layers = SDXL.target_layers(model, "all")
    stem = r"(input_blocks_\d+|middle_block|output_blocks_\d+)_\d_"
    names = {a: n for a, (n,) in known_names(list(layers)).items() if re.match(stem, a)}
    assert sorted(names.values()) == sorted(layers)
    tensors = {}
    for number, alias in enumerate(names):
        shape = (1, 1, 3, 3) if isinstance(layers[names[alias]], nn.Conv2d) else (1, 1)
        for part in ("down", "up"):
            key = f"lora_unet_{alias}.lora_{part}.weight"
            tensors[key] = torch.full(shape, float(number))
    found, _ = StableDiffusionXLPipeline.lora_state_dict(tensors, unet_config=model.config)
    theirs = {
        int(tensor.flatten()[0]): key.removeprefix("unet.").removesuffix(".lora_A.weight")
        for key, tensor in convert_unet_state_dict_to_peft(found).items()
        if "lora_A" in key
    }
    assert [theirs[number] for number in range(len(names))] == list(names.values())


@pytest.mark.parametrize("style", ["peft", "kohya"])
def test_a_locon_of_several_ranks_and_alphas_is_what_diffusers_reads(
    style: str, tmp_path: Path
) -> None:
    """kohya's conv_dim differs from its network_dim; our file gives all layers the largest."""
    torch.manual_seed(0)
    layers = matrix_layers(model_of("sdxl"))
    down, up = NAMES[style]
    tensors: dict[str, Tensor] = {}
    sizes = {LINEAR: (4, None), CONVOLUTION: (2, (3, 3)), SINGLE: (3, (1, 1))}
    for name, (rank, kernel) in sizes.items():
        out, inner = layers[name].weight.shape[:2]
        ends = ((), ()) if kernel is None else (kernel, (1, 1))
        stem = f"unet.{name}" if style == "peft" else f"lora_unet_{name.replace('.', '_')}"
        tensors[f"{stem}.{down}.weight"] = torch.randn(rank, inner, *ends[0])
        tensors[f"{stem}.{up}.weight"] = torch.randn(out, rank, *ends[1])
        tensors |= {f"{stem}.alpha": torch.tensor(2.0)} if style == "kohya" else {}
    save_file(tensors, tmp_path / "a.safetensors")
    theirs = by_diffusers("sdxl", tmp_path / "a.safetensors")
    weights = read_adapter(tmp_path / "a.safetensors", layers)
    model_of("sdxl").save_config(tmp_path / "base" / "unet")
    convert(
        tmp_path / "a.safetensors",
        "--base",
        tmp_path / "base",
        "--output",
        tmp_path / "b.safetensors",
    )
    again = read_adapter(tmp_path / "b.safetensors", layers)
    assert theirs.keys() == weights.layers.keys() == again.layers.keys()
    assert {down.shape[0] for down, _ in again.layers.values()} == {4}
    for one in (weights, again):
        for name, (low, high) in one.layers.items():
            found = high.flatten(1) @ low.flatten(1)
            torch.testing.assert_close(found, theirs[name].flatten(1))


def test_a_convolution_of_another_base_is_told_by_its_shape(base: Path, tmp_path: Path) -> None:
    stem = f"lora_unet_{CONVOLUTION.replace('.', '_')}"
    file = tmp_path / "a.safetensors"
    for shape, message in (
        ((4, 32, 1, 1), "is 64x32x3x3 in the model but 64x32x1x1 in the adapter"),
        ((4, 288), "is 64x32x3x3 in the model but 64x288 in the adapter"),
    ):
        up = (64, 4, 1, 1) if len(shape) == 4 else (64, 4)
        tensors = {f"{stem}.lora_down.weight": torch.ones(shape)}
        save_file({**tensors, f"{stem}.lora_up.weight": torch.ones(up)}, file)
        with pytest.raises(UserError, match=message):
            convert(file, "--base", base, "--output", tmp_path / "b.safetensors")
    for up in ((64, 4, 3, 3), (64, 4), (64, 5, 1, 1)):
        tensors = {f"{stem}.lora_down.weight": torch.ones(4, 32, 3, 3)}
        save_file({**tensors, f"{stem}.lora_up.weight": torch.ones(up)}, file)
        with pytest.raises(UserError, match="do not fit each other"):
            convert(file, "--base", base, "--output", tmp_path / "b.safetensors")
