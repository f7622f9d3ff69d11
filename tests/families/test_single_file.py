"""Single files in their original layouts give back the folder's tensors, offline.

These are diffusers' own calls, with a local folder for the configuration: what the loader of the
program relies on.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from single_file import (
    SDXL_PARTS,
    assert_same,
    picture,
    tiny_flux_converter,
    write_flux,
    write_sdxl,
)

FLUX_WIDTH = 2 * 16


def without_weights(folder: Path, target: Path) -> Path:
    """Copy the configuration and tokenizers of a pipeline folder."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))
    return target


# --- SDXL -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sdxl(tiny_sdxl: Path) -> Any:
    return StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)


@pytest.fixture(scope="module")
def sdxl_file(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("single") / "sdxl.safetensors"
    write_sdxl(tiny_sdxl, file)
    return str(file)


@pytest.fixture(scope="module")
def sdxl_config(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(without_weights(tiny_sdxl, tmp_path_factory.mktemp("config") / "sdxl"))


def test_sdxl_file_has_the_original_names(sdxl_file: str) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(sdxl_file).items()}
    unet, clip, open_clip = "model.diffusion_model", "conditioner.embedders.0", "embedders.1.model"
    for name, shape in {
        f"{unet}.input_blocks.0.0.weight": (32, 4, 3, 3),
        f"{unet}.input_blocks.2.0.op.weight": (32, 32, 3, 3),
        f"{unet}.input_blocks.3.1.transformer_blocks.1.attn2.to_k.weight": (48, 80),
        f"{unet}.middle_block.1.proj_in.weight": (48, 48),
        f"{unet}.output_blocks.1.2.conv.weight": (48, 48, 3, 3),
        f"{unet}.label_emb.0.0.weight": (128, 96),
        f"{unet}.out.2.bias": (4,),
        "first_stage_model.encoder.mid.attn_1.q.weight": (16, 16, 1, 1),
        "first_stage_model.decoder.up.3.upsample.conv.weight": (16, 16, 3, 3),
        f"{clip}.transformer.text_model.encoder.layers.1.self_attn.q_proj.weight": (32, 32),
        f"conditioner.{open_clip}.transformer.resblocks.1.attn.in_proj_weight": (144, 48),
        f"conditioner.{open_clip}.positional_embedding": (77, 48),
    }.items():
        assert shapes[name] == shape, name
    prefixes = (f"{unet}.", "first_stage_model.", f"{clip}.", f"conditioner.{open_clip}.")
    assert all(name.startswith(prefixes) for name in shapes)


def test_sdxl_pipeline(sdxl: Any, sdxl_file: str, sdxl_config: str) -> None:
    loaded = StableDiffusionXLPipeline.from_single_file(
        sdxl_file, config=sdxl_config, local_files_only=True
    )
    for part in SDXL_PARTS:
        assert_same(getattr(loaded, part), getattr(sdxl, part))
        assert type(getattr(loaded, part)) is type(getattr(sdxl, part))
    assert dict(loaded.scheduler.config) == dict(sdxl.scheduler.config)
    assert dict(sdxl.unet.config).items() >= dict(loaded.unet.config).items()
    assert loaded.config.force_zeros_for_empty_prompt
    torch.testing.assert_close(picture(loaded), picture(sdxl))


def test_sdxl_parts(sdxl: Any, sdxl_file: str, sdxl_config: str) -> None:
    def load(*absent: str) -> dict[str, Any]:
        nothing: dict[str, Any] = dict.fromkeys(absent)
        pipeline = StableDiffusionXLPipeline.from_single_file(
            sdxl_file, config=sdxl_config, local_files_only=True, **nothing
        )
        return {name: part for name, part in pipeline.components.items() if part is not None}

    text = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    assert load("unet", "vae").keys() == {*text, "scheduler"}
    assert load(*text, "vae").keys() == {"unet", "scheduler"}
    parts = load(*text, "unet")
    assert parts.keys() == {"vae", "scheduler"}
    assert_same(parts["vae"], sdxl.vae)


@pytest.mark.parametrize("stored", [torch.float16, torch.float32])
def test_sdxl_number_formats(
    sdxl: Any, sdxl_file: str, sdxl_config: str, stored: torch.dtype, tmp_path: Path
) -> None:
    tensors = load_file(sdxl_file)
    floats = {name for name, value in tensors.items() if value.is_floating_point()}
    file = str(tmp_path / "stored.safetensors")
    save_file(tensors | {name: tensors[name].to(stored) for name in floats}, file)
    options: dict[str, Any] = {"config": sdxl_config, "local_files_only": True}
    vae = AutoencoderKL.from_single_file(
        file, subfolder="vae", torch_dtype=torch.float32, **options
    )
    loaded = StableDiffusionXLPipeline.from_single_file(
        file, torch_dtype=torch.bfloat16, vae=vae, **options
    )
    assert loaded.vae.dtype == torch.float32
    assert_same(loaded.vae, copy.deepcopy(sdxl.vae).to(stored).float())
    for part in ("unet", "text_encoder", "text_encoder_2"):
        assert {value.dtype for value in getattr(loaded, part).parameters()} == {torch.bfloat16}


def test_sdxl_unet_alone(sdxl: Any, tiny_sdxl: Path, sdxl_config: str, tmp_path: Path) -> None:
    file = tmp_path / "unet.safetensors"
    write_sdxl(tiny_sdxl, file, ("unet",))
    unet = UNet2DConditionModel.from_single_file(
        str(file), config=sdxl_config, subfolder="unet", local_files_only=True
    )
    assert_same(unet, sdxl.unet)
    loaded = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, unet=unet)
    torch.testing.assert_close(picture(loaded), picture(sdxl))


# --- FLUX -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flux(tiny_flux: Path) -> Any:
    return FluxPipeline.from_pretrained(tiny_flux)


@pytest.fixture(scope="module", params=["", "model.diffusion_model."])
def flux_file(
    request: pytest.FixtureRequest, tiny_flux: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    file = tmp_path_factory.mktemp("single") / "flux.safetensors"
    write_flux(tiny_flux, file, request.param)
    return str(file)


@pytest.fixture
def _tiny_width() -> Iterator[None]:
    with tiny_flux_converter(FLUX_WIDTH):
        yield


def test_flux_file_has_the_original_names(flux_file: str) -> None:
    shapes = {
        name.removeprefix("model.diffusion_model."): tuple(tensor.shape)
        for name, tensor in load_file(flux_file).items()
    }
    for name, shape in {
        "double_blocks.1.img_attn.qkv.weight": (96, 32),
        "double_blocks.0.txt_attn.qkv.bias": (96,),
        "double_blocks.0.img_attn.norm.key_norm.scale": (16,),
        "double_blocks.0.txt_mlp.2.weight": (32, 128),
        "single_blocks.1.linear1.weight": (3 * 32 + 128, 32),
        "single_blocks.1.linear2.weight": (32, 32 + 128),
        "single_blocks.0.modulation.lin.weight": (96, 32),
        "guidance_in.in_layer.weight": (32, 256),
        "final_layer.adaLN_modulation.1.weight": (64, 32),
        "img_in.weight": (32, 64),
    }.items():
        assert shapes[name] == shape, name
    first = "double_blocks single_blocks img_in txt_in time_in vector_in guidance_in final_layer"
    assert {name.split(".")[0] for name in shapes} == set(first.split())


@pytest.mark.usefixtures("_tiny_width")
def test_flux_transformer(flux: Any, flux_file: str, tiny_flux: Path, tmp_path: Path) -> None:
    config = str(without_weights(tiny_flux, tmp_path / "config"))
    transformer = FluxTransformer2DModel.from_single_file(
        flux_file, config=config, subfolder="transformer", local_files_only=True
    )
    assert_same(transformer, flux.transformer)
    half = FluxTransformer2DModel.from_single_file(
        flux_file,
        config=config,
        subfolder="transformer",
        local_files_only=True,
        torch_dtype=torch.bfloat16,
    )
    assert {value.dtype for value in half.parameters()} == {torch.bfloat16}


@pytest.mark.usefixtures("_tiny_width")
def test_flux_pipeline(flux: Any, flux_file: str, tiny_flux: Path) -> None:
    transformer = FluxTransformer2DModel.from_single_file(
        flux_file, config=str(tiny_flux), subfolder="transformer", local_files_only=True
    )
    loaded = FluxPipeline.from_pretrained(tiny_flux, transformer=transformer)
    torch.testing.assert_close(picture(loaded), picture(flux))


def test_flux_in_diffusers_names(flux: Any, tiny_flux: Path) -> None:
    file = tiny_flux / "transformer" / "diffusion_pytorch_model.safetensors"
    transformer = FluxTransformer2DModel.from_single_file(
        str(file), config=str(tiny_flux), subfolder="transformer", local_files_only=True
    )
    assert_same(transformer, flux.transformer)
