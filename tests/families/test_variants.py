"""Bases of the family's name but of another kind are refused by what they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from training_runs import tlora, write_recipe
from validations import recipe, told

from tlora_cli import UserError
from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.families.variants import check_index
from tlora_cli.tools.preflight.base_files import look_at_base

CLASSES: dict[str, Any] = {"unet": UNet2DConditionModel, "transformer": FluxTransformer2DModel}


def variant(tiny: Path, target: Path, part: str = "", index: Any = None, **config: Any) -> Path:
    """Return a copy of a base with another index, and a part of another configuration."""
    shutil.copytree(tiny, target)
    found = json.loads((target / "model_index.json").read_text())
    (target / "model_index.json").write_text(json.dumps({**found, **(index or {})}))
    if part:
        kind = CLASSES[part]
        own = dict(kind.load_config(target / part))
        kind.from_config({**own, **config}).save_pretrained(target / part)
    return target


OTHERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "SDXL inpainting": (
        "tiny_sdxl",
        {
            "index": {"_class_name": "StableDiffusionXLInpaintPipeline"},
            "part": "unet",
            "in_channels": 9,
        },
        "takes 9 channels",
    ),
    "SDXL instruct": ("tiny_sdxl", {"part": "unet", "in_channels": 8}, "inpainting, control or"),
    "FLUX.1 Fill": (
        "tiny_flux",
        {"part": "transformer", "in_channels": 384, "out_channels": 64},
        "takes 384 channels",
    ),
    "FLUX.1 Depth": (
        "tiny_flux",
        {"part": "transformer", "in_channels": 128, "out_channels": 64},
        "takes 128 channels",
    ),
    "SDXL refiner": (
        "tiny_sdxl",
        {
            "index": {
                "_class_name": "StableDiffusionXLImg2ImgPipeline",
                "text_encoder": [None, None],
                "tokenizer": [None, None],
            }
        },
        "it has no text_encoder",
    ),
    "FLUX.2": (
        "tiny_flux",
        {
            "index": {
                "_class_name": "FluxKontextPipeline",
                "transformer": ["diffusers", "Flux2Transformer2DModel"],
            }
        },
        "Flux2Transformer2DModel in place of a FluxTransformer2DModel",
    ),
    "Redux": ("tiny_flux", {"index": {"transformer": None}}, "it has no transformer"),
    "tiny VAE": ("tiny_sdxl", {"index": {"vae": ["diffusers", "AutoencoderTiny"]}}, "Tiny"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_models_of_the_name(
    case: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fixture, changes, words = OTHERS[case]
    tiny = request.getfixturevalue(fixture)
    base = str(variant(tiny, tmp_path / "base", **changes))
    with pytest.raises(UserError) as refused:
        load_pipeline(FAMILIES[fixture.removeprefix("tiny_")], Base(base))
    assert words in refused.value.what
    assert "text-to-image" in refused.value.do
    found = list(look_at_base(recipe(tiny, tmp_path, base={"model": base})))
    assert words in told(found, "problem")


@pytest.mark.full
def test_the_command_line_refuses_a_variant(tiny_flux: Path, tmp_path: Path) -> None:
    base = variant(tiny_flux, tmp_path / "base", "transformer", in_channels=384, out_channels=64)
    written = write_recipe(tiny_flux, tmp_path / "t", base=str(base))
    for command in (("validate", written), ("train", "--config", written)):
        outcome = tlora(*command)
        assert outcome.returncode in (1, 2)
        assert "takes 384 channels" in outcome.stdout + outcome.stderr
        assert "internal error" not in outcome.stdout + outcome.stderr


def test_a_variant_of_the_same_parts_is_said(tiny_flux: Path, tmp_path: Path) -> None:
    index = {"_class_name": "FluxKontextPipeline", "controlnet": ["diffusers", "FluxControlNet"]}
    base = str(variant(tiny_flux, tmp_path / "base", index=index))
    with pytest.warns(UserWarning) as said:
        load_pipeline(FAMILIES["flux"], Base(base), parts=("vae",))
    texts = "\n".join(str(one.message) for one in said)
    assert "is a FluxKontextPipeline; it is trained and drawn as a FluxPipeline" in texts
    assert "also has a part controlnet (FluxControlNet), which is left out" in texts
    found = list(look_at_base(recipe(tiny_flux, tmp_path, base={"model": base})))
    assert "FluxKontextPipeline" in told(found, "warning")
    assert not told(found, "problem")


def test_a_folder_with_scales_beside_its_weights(tiny_sdxl: Path, tmp_path: Path) -> None:
    """diffusers drops them with a notice that is hidden; the weights would be wrong."""
    base = variant(tiny_sdxl, tmp_path / "base")
    file = base / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"conv_in.weight_scale": torch.ones(())}, file)
    with pytest.raises(UserError, match=r"does not take, such as conv_in\.weight_scale"):
        load_pipeline(FAMILIES["sdxl"], Base(str(base)), parts=())
    found = list(look_at_base(recipe(tiny_sdxl, tmp_path, base={"model": str(base)})))
    assert "conv_in.weight_scale" in told(found, "problem")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_without_one_of_its_parts_is_refused(family: str) -> None:
    kind = FAMILIES[family]
    index = {part: ["library", "Something"] for part in kind.text_parts}
    index |= {"_class_name": kind.pipeline_class.partition(":")[2]}
    index |= {kind.denoiser: ["diffusers", kind.denoiser_class.partition(":")[2]]}
    index |= {"vae": ["diffusers", kind.vae_class.partition(":")[2]]}
    assert check_index(kind, index, "base") == []
    for part in (*kind.text_parts, kind.denoiser, "vae"):
        lacking = {**index, part: [None, None]}
        if part in kind.zeros_without:
            assert check_index(kind, lacking, "base") == []
            continue
        with pytest.raises(UserError, match=f"it has no {part}"):
            check_index(kind, lacking, "base")
