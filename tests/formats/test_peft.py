"""diffusers and PEFT LoRAs: each layer's update equals what stock diffusers makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import (
    close,
    convert,
    denoiser,
    masked_update,
    random_adapter,
    write_bases,
)
from lora_files import (
    FLUX_LAYERS,
    PREFIX,
    SDXL_LAYERS,
    by_diffusers,
    check_same,
    factors,
    linears,
    model_of,
    updates,
)
from safetensors.torch import save_file
from torch import Tensor, nn

from tlora_cli import UserError
from tlora_cli.formats import read_adapter, read_origin
from tlora_cli.injection.load import matrix_layers


def write_peft(
    file: Path,
    family: str,
    style: str = "peft",
    settings: dict[str, Any] | None = None,
    ranks: tuple[int, ...] = (4,),
    alpha: float | None = None,
) -> dict[str, nn.Linear]:
    torch.manual_seed(0)
    layers = linears(model_of(family))
    tensors: dict[str, Tensor] = {}
    for number, name in enumerate(SDXL_LAYERS if family == "sdxl" else FLUX_LAYERS):
        rank = ranks[number % len(ranks)]
        tensors |= factors(PREFIX[family] + name, style, layers[name], rank, alpha)
    flat = {f"{PREFIX[family]}{key}": value for key, value in (settings or {}).items()}
    save_file(tensors, file, {"lora_adapter_metadata": json.dumps(flat)} if flat else None)
    return layers


@pytest.mark.parametrize(
    "settings",
    [
        None,
        {"r": 4, "lora_alpha": 8},
        {"r": 4, "lora_alpha": 1.5, "use_rslora": True},
        {"r": 4, "lora_alpha": 8, "alpha_pattern": {".*transformer_blocks.*to_k": 1, "ff": 3}},
        {"r": 16, "lora_alpha": 8, "rank_pattern": {".*": 4}},
    ],
    ids=["none", "alpha", "rslora", "alpha_pattern", "rank_pattern"],
)
@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_peft(family: str, settings: dict[str, Any] | None, tmp_path: Path) -> None:
    file = tmp_path / "pytorch_lora_weights.safetensors"
    targets = list(SDXL_LAYERS if family == "sdxl" else FLUX_LAYERS)
    full = None if settings is None else {"target_modules": targets, **settings}
    layers = write_peft(file, family, settings=full)
    weights = read_adapter(tmp_path, layers)
    assert weights.family == family
    assert read_origin(tmp_path) == (family, weights.info)
    check_same(updates(weights), by_diffusers(family, file))


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_older_diffusers_names_and_several_ranks(family: str, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    layers = write_peft(file, family, "older", ranks=(4, 2, 4))
    check_same(updates(read_adapter(file, layers)), by_diffusers(family, file))


def test_attention_processor_names(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    layers = linears(model_of("sdxl"))
    attention = "mid_block.attentions.0.transformer_blocks.0.attn2"
    tensors: dict[str, Tensor] = {}
    for ours, theirs in (("to_q", "to_q"), ("to_out.0", "to_out"), ("to_k", "to_k")):
        made = factors("x", "older", layers[f"{attention}.{ours}"], 4, None)
        for key, tensor in made.items():
            name = key.replace("x.lora.", f"unet.{attention}.processor.{theirs}_lora.")
            tensors[name] = tensor
    save_file(tensors, file)
    check_same(updates(read_adapter(file, layers)), by_diffusers("sdxl", file))


def test_alpha_tensors_scale_as_flux_in_diffusers(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    layers = write_peft(file, "flux", alpha=2)
    check_same(updates(read_adapter(file, layers)), by_diffusers("flux", file))


def test_alpha_tensors_scale_sdxl_too(tmp_path: Path) -> None:
    """diffusers refuses such a file; ComfyUI scales it."""
    with_alpha, without = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    layers = write_peft(with_alpha, "sdxl", alpha=2)
    write_peft(without, "sdxl")
    halved = {name: x / 2 for name, x in updates(read_adapter(without, layers)).items()}
    check_same(updates(read_adapter(with_alpha, layers)), halved)


def test_peft_itself_with_its_configuration_beside(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = model_of("sdxl")
    layers = linears(model)
    wrapped = get_peft_model(
        model,
        LoraConfig(
            r=4,
            lora_alpha=6,
            target_modules=list(SDXL_LAYERS),
            alpha_pattern={"mid_block.*": 3},
            init_lora_weights=False,
        ),
    )
    wrapped.save_pretrained(tmp_path)
    expected = {
        name.removeprefix("base_model.model."): module.get_delta_weight("default")
        for name, module in wrapped.named_modules()
        if "default" in getattr(module, "lora_A", {})
    }
    check_same(updates(read_adapter(tmp_path, layers)), expected)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(UserError, match="the LoRA's scale is not known"):
        read_adapter(tmp_path, layers)


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize(("method", "targets"), [("lora", "all"), ("tlora", "attention")])
def test_peft_itself_loads_our_folder(
    method: str, targets: str, family: str, tmp_path: Path
) -> None:
    """The update of every layer, of both kinds; and read again, all of it."""
    from peft import PeftModel

    base = write_bases(tmp_path / "bases")[family]
    source, there = tmp_path / "ours.safetensors", tmp_path / "there"
    weights = random_adapter(source, family, method, targets=targets)
    said = convert(source, "--to", "peft", "--base", base, "--output", there)
    assert "PeftModel.from_pretrained" in said
    assert ("the rank schedule is gone" in said) == (method == "tlora")
    loaded = PeftModel.from_pretrained(denoiser(family), str(there))
    found = {
        name.removeprefix("base_model.model."): module.get_delta_weight("default")
        for name, module in loaded.named_modules()
        if "default" in getattr(module, "lora_A", {})
    }
    assert found.keys() == weights.layers.keys()
    for name, update in found.items():
        assert close(update.flatten(1).double(), masked_update(weights, name, 0)), name
    again = read_adapter(there, matrix_layers(denoiser(family)))
    assert again.family == family
    for name, (down, up) in again.layers.items():
        product = up.flatten(1).double() @ down.flatten(1).double()
        assert close(product, masked_update(weights, name, 0)), name


@pytest.mark.parametrize(
    ("settings", "alpha", "message"),
    [
        (
            {"r": 8, "lora_alpha": 8},
            None,
            f"the LoRA's metadata says rank 8 for {min(SDXL_LAYERS)}, but its factors have 4",
        ),
        (
            {"r": 4, "lora_alpha": 8},
            2.0,
            "the LoRA says alpha 8 in its metadata but 2 beside " + min(SDXL_LAYERS),
        ),
        ({"r": "x"}, None, "the LoRA's metadata is damaged (ValueError: "),
        (
            {"r": 4, "rank_pattern": {"(": 4}},
            None,
            "the LoRA's metadata is damaged (ValueError: must be",
        ),
    ],
)
def test_contradicting_scales_are_refused(
    settings: dict[str, Any], alpha: float | None, message: str, tmp_path: Path
) -> None:
    layers = write_peft(tmp_path / "a.safetensors", "sdxl", settings=settings, alpha=alpha)
    with pytest.raises(UserError) as refused:
        read_adapter(tmp_path / "a.safetensors", layers)
    assert refused.value.what.startswith(message)


def test_dora_biases_and_factors_of_no_layer_in_peft_names_are_refused(tmp_path: Path) -> None:
    layers = linears(model_of("sdxl"))
    plain = factors(f"unet.{SDXL_LAYERS[0]}", "peft", layers[SDXL_LAYERS[0]], 2, None)
    convolution = "down_blocks.0.resnets.0.conv1"
    for extra, message in (
        (
            {f"unet.{SDXL_LAYERS[0]}.lora_magnitude_vector": torch.ones(4)},
            "the file is a DoRA adapter, which tlora can't apply",
        ),
        (
            {f"unet.{SDXL_LAYERS[0]}.lora_B.bias": torch.ones(4)},
            "the file is a LoRA with biases, which tlora can't apply",
        ),
        (
            {
                f"unet.{convolution}.lora_A.weight": torch.ones(2, 4, 3, 3),
                f"unet.{convolution}.lora_B.weight": torch.ones(4, 2, 3, 3),
            },
            f"the factors of layer {convolution} do not fit each other: "
            "(2, 4, 3, 3) and (4, 2, 3, 3)",
        ),
        (
            {f"unet.{convolution}.lora_A.weight": torch.ones(2, 4)},
            f"layer {convolution} lacks its up factor",
        ),
        (
            {"unet.norm.weight": torch.ones(2)},
            "the LoRA holds a tensor that is not known: unet.norm.weight",
        ),
    ):
        save_file(plain | extra, tmp_path / "a.safetensors")
        with pytest.raises(UserError) as refused:
            read_adapter(tmp_path / "a.safetensors", layers)
        assert refused.value.what == message
