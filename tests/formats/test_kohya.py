"""kohya LoRAs: each layer's update equals what stock diffusers makes of it."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusionXLPipeline
from diffusers.utils import convert_unet_state_dict_to_peft
from lora_files import (
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
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.formats import read_adapter, read_origin
from tlora_cli.formats.kohya_names import known_names


def original_name(name: str) -> str:
    """Return a layer's name in the original SDXL UNet, for one resnet a block."""
    for pattern, stem in (
        (r"down_blocks\.1\.attentions\.0\.", "input_blocks_3_1_"),
        (r"mid_block\.attentions\.0\.", "middle_block_1_"),
        (r"up_blocks\.0\.attentions\.0\.", "output_blocks_0_1_"),
        (r"up_blocks\.0\.attentions\.1\.", "output_blocks_1_1_"),
    ):
        name = re.sub(pattern, stem, name)
    return name.replace(".", "_")


@pytest.mark.parametrize("naming", ["diffusers", "original"])
@pytest.mark.parametrize(("ranks", "alpha"), [((4,), 1.0), ((4, 2), None)])
def test_kohya_sdxl(
    naming: str, ranks: tuple[int, ...], alpha: float | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    layers = linears(model_of("sdxl"))
    tensors: dict[str, Tensor] = {}
    for number, name in enumerate(SDXL_LAYERS):
        theirs = name.replace(".", "_") if naming == "diffusers" else original_name(name)
        rank = ranks[number % len(ranks)]
        tensors |= factors(f"lora_unet_{theirs}", "kohya", layers[name], rank, alpha)
    save_file(tensors, tmp_path / "a.safetensors", {"ss_network_dim": "4"})
    weights = read_adapter(tmp_path / "a.safetensors", layers)
    assert weights.family == "sdxl"
    assert read_origin(tmp_path / "a.safetensors") == ("sdxl", weights.info)
    check_same(updates(weights), by_diffusers("sdxl", tmp_path / "a.safetensors"))


def test_every_layer_keeps_its_own_alpha(tmp_path: Path) -> None:
    """diffusers 0.42 takes the commonest alpha for all layers of an SDXL file."""
    layers = linears(model_of("sdxl"))
    tensors: dict[str, Tensor] = {}
    for alpha, name in enumerate(SDXL_LAYERS, start=1):
        tensors |= factors(
            f"lora_unet_{name.replace('.', '_')}", "kohya", layers[name], 4, float(alpha)
        )
    save_file(tensors, tmp_path / "a.safetensors")
    found = updates(read_adapter(tmp_path / "a.safetensors", layers))
    for alpha, name in enumerate(SDXL_LAYERS, start=1):
        stem = f"lora_unet_{name.replace('.', '_')}"
        product = tensors[f"{stem}.lora_up.weight"] @ tensors[f"{stem}.lora_down.weight"]
        torch.testing.assert_close(found[name], product * alpha / 4)


def test_kohya_names_of_the_true_sdxl() -> None:
    """diffusers' own renaming, of every attention and feed-forward layer of SDXL."""
    model = meta_denoiser("sdxl")
    layers = linears(model)
    names = known_names(layers)
    assert len([name for name in layers if re.fullmatch(r".*attn[12]\.to_.*", name)]) == 560
    original = {
        alias: name
        for alias, (name,) in names.items()
        if re.match(r"(input_blocks_\d+|middle_block|output_blocks_\d+)_1_", alias)
    }
    assert set(original.values()) == {name for name in layers if ".attentions." in name}
    tensors = {}
    for number, alias in enumerate(original):
        for part in ("down", "up"):
            tensors[f"lora_unet_{alias}.lora_{part}.weight"] = torch.tensor([[number]])
    found, _ = StableDiffusionXLPipeline.lora_state_dict(tensors, unet_config=model.config)
    peft = convert_unet_state_dict_to_peft(found)
    theirs = {
        int(tensor): key.removeprefix("unet.").removesuffix(".lora_A.weight")
        for key, tensor in peft.items()
        if "lora_A" in key
    }
    assert [theirs[number] for number in range(len(original))] == list(original.values())


FLUX_ROWS = {
    "double_blocks_3_img_attn_qkv": 9216,
    "double_blocks_3_img_attn_proj": 3072,
    "double_blocks_3_img_mlp_0": 12288,
    "double_blocks_3_img_mlp_2": 3072,
    "double_blocks_3_img_mod_lin": 18432,
    "double_blocks_18_txt_attn_qkv": 9216,
    "double_blocks_18_txt_attn_proj": 3072,
    "double_blocks_18_txt_mlp_0": 12288,
    "double_blocks_18_txt_mlp_2": 3072,
    "double_blocks_18_txt_mod_lin": 18432,
    "single_blocks_37_linear1": 21504,
    "single_blocks_37_linear2": 3072,
    "single_blocks_37_modulation_lin": 9216,
}
"""Every kind of layer in kohya's FLUX names, and its outputs."""


@pytest.mark.parametrize("alpha", [None, 1.0])
@pytest.mark.parametrize("block_diagonal", [False, True])
def test_kohya_flux(block_diagonal: bool, alpha: float | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rank = 12 if block_diagonal else 2
    tensors = {}
    for name, rows in FLUX_ROWS.items():
        up = torch.randn(rows, rank)
        if block_diagonal and ("qkv" in name or "linear1" in name):
            sizes = [3072] * 3 + [12288] * ("linear1" in name)
            blocks = [torch.randn(size, rank // len(sizes)) for size in sizes]
            up = torch.block_diag(*blocks)
        tensors[f"lora_unet_{name}.lora_up.weight"] = up
        tensors[f"lora_unet_{name}.lora_down.weight"] = torch.randn(rank, 5)
        if alpha is not None:
            tensors[f"lora_unet_{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, tmp_path / "a.safetensors")
    weights = read_adapter(tmp_path / "a.safetensors", linears(meta_denoiser("flux")))
    assert weights.family == "flux"
    converted = FluxPipeline.lora_state_dict(str(tmp_path / "a.safetensors"))
    expected = {
        key.removeprefix("transformer.").removesuffix(".lora_A.weight"): converted[
            key.replace("lora_A", "lora_B")
        ]
        @ down
        for key, down in converted.items()
        if "lora_A" in key
    }
    assert len(expected) == 13 + 2 + 2 + 3
    check_same(updates(weights), expected)
    if block_diagonal:
        assert weights.layers["transformer_blocks.3.attn.to_q"][0].shape == (4, 5)
        assert weights.layers["single_transformer_blocks.37.proj_mlp"][0].shape == (3, 5)


def test_text_encoder_layers_are_left_out_with_a_warning(tmp_path: Path) -> None:
    layers = linears(model_of("sdxl"))
    name = SDXL_LAYERS[0]
    text = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    tensors = factors(f"lora_unet_{name.replace('.', '_')}", "kohya", layers[name], 2, 1.0)
    tensors |= factors(text, "kohya", layers[name], 2, 1.0)
    save_file(tensors, tmp_path / "a.safetensors")
    peft = factors(f"unet.{name}", "peft", layers[name], 2, None)
    peft |= factors("text_encoder.text_model.fc1", "peft", layers[name], 2, None)
    save_file(peft, tmp_path / "b.safetensors")
    for file, count in (("a.safetensors", 3), ("b.safetensors", 2)):
        with pytest.warns(UserWarning, match=rf"{file} also adapts text encoders \({count} tens"):
            assert list(read_adapter(tmp_path / file, layers).layers) == [name]
    save_file({k: v for k, v in tensors.items() if k.startswith(text)}, tmp_path / "c.safetensors")
    with warnings.catch_warnings(), pytest.raises(UserError, match="changes text encoders alone"):
        warnings.simplefilter("ignore")
        read_adapter(tmp_path / "c.safetensors", layers)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        ("dora_scale", "a DoRA adapter"),
        ("hada_w1_a", "a LoHa adapter (LyCORIS)"),
        ("lokr_w1", "a LoKr adapter (LyCORIS)"),
        ("lora_mid.weight", "a LoCon adapter with a Tucker core (LyCORIS)"),
        ("oft_blocks", "an OFT adapter"),
        ("on_input", "an IA3 adapter (LyCORIS)"),
        ("diff_b", "an adapter with full weight differences (LyCORIS)"),
    ],
)
def test_other_adapters_in_kohya_names_are_named(suffix: str, kind: str, tmp_path: Path) -> None:
    layers = linears(model_of("sdxl"))
    stem = f"lora_unet_{SDXL_LAYERS[0].replace('.', '_')}"
    tensors = {f"{stem}.{suffix}": torch.ones(2, 2), f"{stem}.alpha": torch.tensor(1.0)}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UserError) as refused:
        read_adapter(tmp_path / "a.safetensors", layers)
    assert refused.value.what == f"the file is {kind}, which tlora can't apply"


def test_kohya_of_the_other_family_and_of_unknown_layers(tmp_path: Path) -> None:
    layer = nn.Linear(4, 4)
    for stem, message in (
        ("lora_unet_double_blocks_0_img_attn_proj", "the adapter is for flux, the model is sdxl"),
        (
            "lora_unet_down_blocks_0_attentions_0_proj_in",
            "the adapter has a layer the model lacks: down_blocks_0_attentions_0_proj_in, as "
            "Stable Diffusion 1 or 2 has",
        ),
    ):
        save_file(factors(stem, "kohya", layer, 2, 1.0), tmp_path / "a.safetensors")
        with pytest.raises(UserError) as refused:
            read_adapter(tmp_path / "a.safetensors", linears(model_of("sdxl")))
        assert refused.value.what == message
