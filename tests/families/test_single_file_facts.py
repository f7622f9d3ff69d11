"""What a single file says beside its weights is followed, said or refused; nothing is dropped."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from single_file import tiny_flux_converter, write_flux, write_sdxl
from torch import Tensor
from validations import recipe, told

from tlora_cli import UserError
from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.formulas.objectives import Epsilon, VPrediction
from tlora_cli.tools.preflight.base_files import look_at_base

UNET = "model.diffusion_model."
FLUX_WIDTH = 32


@pytest.fixture(scope="module")
def written(
    tiny_sdxl: Path, tiny_flux: Path, tmp_path_factory: Any
) -> dict[str, dict[str, Tensor]]:
    """Return family -> the tensors of its tiny model as a single file."""
    folder = tmp_path_factory.mktemp("written")
    write_sdxl(tiny_sdxl, folder / "sdxl")
    write_flux(tiny_flux, folder / "flux")
    return {name: load_file(folder / name) for name in ("sdxl", "flux")}


def load(tensors: dict[str, Tensor], config: Path, family: str = "sdxl", **header: str) -> Any:
    """Return the pipeline of a file with these tensors, which lies beside the test's folder."""
    file = config.parent / "file.safetensors"
    save_file(tensors, file, header or None)
    with tiny_flux_converter(FLUX_WIDTH):
        return load_pipeline(FAMILIES[family], Base(str(file), config=str(config)))


@pytest.fixture
def config(tiny_sdxl: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_sdxl, tmp_path / "config")
    return tmp_path / "config"


@pytest.mark.parametrize(
    ("marks", "header", "predicts", "ends_in_noise"),
    [
        (("v_pred", "ztsnr"), {}, VPrediction, True),
        (("v_pred",), {}, VPrediction, False),
        ((), {"modelspec.prediction_type": "v"}, VPrediction, False),
        ((), {"modelspec.predict_key": "v"}, VPrediction, False),
        ((), {"modelspec.prediction_type": "epsilon"}, Epsilon, False),
    ],
)
def test_marks_of_the_training_are_followed(
    marks: tuple[str, ...],
    header: dict[str, str],
    predicts: type,
    ends_in_noise: bool,
    written: dict[str, dict[str, Tensor]],
    config: Path,
) -> None:
    tensors = written["sdxl"] | {mark: torch.tensor([]) for mark in marks}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scheduler = load(tensors, config, **header).scheduler
    told_so = [str(one.message) for one in said if "it predicts" in str(one.message)]
    assert bool(told_so) == (predicts is VPrediction)
    objective = FAMILIES["sdxl"].objective(dict(scheduler.config), "auto")
    assert type(objective) is predicts
    assert (objective.signal_shares()[-1] < 1e-6) == ends_in_noise
    scheduler.set_timesteps(10)
    # Drawing that ends in noise alone has to begin there (Lin et al. 2023, section 3.3).
    assert (int(scheduler.timesteps[0]) == 999) == ends_in_noise


@pytest.mark.parametrize(
    ("marks", "header", "words"),
    [
        (("edm_mean", "edm_std"), {}, "EDM"),
        (("edm_vpred.sigma_max", "v_pred"), {}, "EDM"),
        ((), {"modelspec.prediction_type": "x0"}, "modelspec.prediction_type: x0"),
    ],
)
def test_marks_that_are_not_understood(
    marks: tuple[str, ...],
    header: dict[str, str],
    words: str,
    written: dict[str, dict[str, Tensor]],
    config: Path,
    tiny_sdxl: Path,
) -> None:
    tensors = written["sdxl"] | {mark: torch.zeros(1) for mark in marks}
    with pytest.raises(UserError, match=words):
        load(tensors, config, **header)
    base = {"model": str(config.parent / "file.safetensors"), "config": str(config)}
    found = list(look_at_base(recipe(tiny_sdxl, config.parent, base=base)))
    assert words in told(found, "problem")


def scaled(tensors: dict[str, Tensor], prefix: str, form: str) -> dict[str, Tensor]:
    """Return the file in ComfyUI's scaled fp8, with one scale a layer, or a row."""
    stored = {}
    for name, tensor in tensors.items():
        if tensor.dim() != 2 or not name.startswith(prefix) or not name.endswith(".weight"):
            stored[name] = tensor
            continue
        rows = form == "rows"
        scale = (tensor.abs().amax(1, keepdim=True) if rows else tensor.abs().max()) / 400
        stored[name] = (tensor / scale).to(torch.float8_e4m3fn)
        layer = name.removesuffix(".weight")
        if form == "comfy_quant":
            text = json.dumps({"format": "float8_e4m3fn"}).encode()
            stored[f"{layer}.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
            stored[f"{layer}.weight_scale"] = scale.reshape(())
            stored[f"{layer}.input_scale"] = torch.tensor(1.0)
        else:
            stored[f"{layer}.scale_weight"] = scale.flatten() if rows else scale.reshape(())
    if form != "comfy_quant":
        stored[f"{prefix}scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    return stored


@pytest.mark.parametrize("form", ["scale_weight", "rows", "comfy_quant"])
@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_scales_of_fp8_are_multiplied_in(
    form: str,
    family: str,
    written: dict[str, dict[str, Tensor]],
    tiny_sdxl: Path,
    tiny_flux: Path,
    tmp_path: Path,
) -> None:
    """Each weight comes back up to the rounding of fp8, whose numbers have four digits of two."""
    config = shutil.copytree(tiny_sdxl if family == "sdxl" else tiny_flux, tmp_path / "config")
    stored = scaled(written[family], UNET if family == "sdxl" else "", form)
    assert any(tensor.dtype is torch.float8_e4m3fn for tensor in stored.values())
    kind = FAMILIES[family]
    got = getattr(load(stored, config, family), kind.denoiser).state_dict()
    wanted = getattr(load(written[family], config, family), kind.denoiser).state_dict()
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        least = tensor.abs().max() / 400 / 512 if tensor.dim() == 2 else 0
        torch.testing.assert_close(got[name], tensor, rtol=1 / 16, atol=float(least) * 1.01)


def test_fp8_without_scales_is_read_as_it_stands(
    written: dict[str, dict[str, Tensor]], config: Path
) -> None:
    stored = {name: t.to(torch.float8_e4m3fn) for name, t in written["sdxl"].items()}
    bias = load(stored, config).unet.conv_in.bias
    wanted = written["sdxl"][f"{UNET}input_blocks.0.0.bias"].to(torch.float8_e4m3fn).float()
    assert torch.equal(bias, wanted)


LAYER = f"{UNET}input_blocks.3.1.proj_in"
NF4 = {f"{LAYER}.weight.absmax": torch.zeros(3), f"{LAYER}.weight.quant_map": torch.zeros(16)}
ODD: dict[str, tuple[dict[str, Tensor], str]] = {
    "nf4": (NF4, r"proj_in\.weight\.absmax"),
    "svdquant": ({f"{LAYER}.qweight": torch.zeros(3)}, r"proj_in\.qweight"),
    "blocks": ({f"{LAYER}.weight_scale": torch.zeros(48, 3)}, "scales of blocks"),
    "no weight": ({f"{UNET}gone.scale_weight": torch.zeros(())}, "gone.scale_weight|gone"),
    "text": (
        {"conditioner.embedders.0.transformer.text_model.x.scale_weight": torch.ones(())},
        "denoiser alone",
    ),
    "more": ({f"{UNET}ip_adapter.weight": torch.zeros(7)}, "holds 7 numbers more than the unet"),
}


@pytest.mark.parametrize("case", ODD)
def test_tensors_that_no_model_takes_are_refused(
    case: str, written: dict[str, dict[str, Tensor]], config: Path
) -> None:
    tensors, words = ODD[case]
    with pytest.raises(UserError, match=words):
        load(written["sdxl"] | tensors, config)


def test_other_forms_of_comfy_quant_are_refused(
    written: dict[str, dict[str, Tensor]], config: Path
) -> None:
    text = json.dumps({"format": "int8_tensorwise", "convrot": True}).encode()
    mark = {f"{LAYER}.comfy_quant": torch.tensor(list(text), dtype=torch.uint8)}
    with pytest.raises(UserError, match="convrot: True, format: int8_tensorwise"):
        load(written["sdxl"] | mark, config)
    layers = {"layers": {LAYER: {"format": "nvfp4"}}}
    with pytest.raises(UserError, match="format: nvfp4"):
        load(written["sdxl"], config, _quantization_metadata=json.dumps(layers))


def test_files_of_other_models_are_called_by_their_names(
    written: dict[str, dict[str, Tensor]], config: Path, tiny_flux: Path, tmp_path: Path
) -> None:
    first = f"{UNET}input_blocks.0.0.weight"
    inpainting = written["sdxl"] | {first: torch.zeros(32, 9, 3, 3)}
    with pytest.raises(UserError, match=r"32 x 9 x 3 x 3 in file\.safetensors, but 32 x 4 x 3 x 3"):
        load(inpainting, config)
    with pytest.raises(UserError, match="it is a ControlNet"):
        load({"control_model.input_hint_block.0.weight": torch.zeros(1)}, config)
    with pytest.raises(UserError, match="it is a LoRA"):
        load({"lora_unet_x.lora_down.weight": torch.zeros(1)}, config)
    flux = shutil.copytree(tiny_flux, tmp_path / "flux" / "config")
    fill = written["flux"] | {"img_in.weight": torch.zeros(32, 384)}
    with pytest.raises(UserError, match=r"img_in\.weight is 32 x 384"):
        load(fill, flux, "flux")
    chroma = written["flux"] | {"distilled_guidance_layer.in_proj.weight": torch.zeros(3)}
    with pytest.raises(UserError, match="by its names it is Chroma"):
        load(chroma, flux, "flux")


def test_parts_that_are_not_used_are_said(
    written: dict[str, dict[str, Tensor]], tiny_flux: Path, tmp_path: Path
) -> None:
    config = shutil.copytree(tiny_flux, tmp_path / "config")
    tensors = {f"{UNET}{name}": tensor for name, tensor in written["flux"].items()}
    tensors |= {"vae.decoder.conv_in.weight": torch.zeros(3), "mystery": torch.zeros(1)}
    with pytest.warns(UserWarning) as said:
        load(tensors, config, "flux")
    texts = [str(one.message) for one in said]
    assert "file.safetensors also holds mystery, which tlora does not know" in texts
    assert any("also holds vae, which are not used" in text for text in texts)


def test_a_buffer_that_a_text_encoder_does_not_take_is_said(
    written: dict[str, dict[str, Tensor]], config: Path
) -> None:
    mask = {"conditioner.embedders.1.model.attn_mask": torch.zeros(3)}
    with pytest.warns(UserWarning, match=r"also holds conditioner\.embedders\.1\.model\.attn_mask"):
        assert load(written["sdxl"] | mask, config).unet is not None


@pytest.mark.parametrize("ending", [".SAFETENSORS", ".SafeTensors"])
def test_upper_case_endings(
    ending: str, written: dict[str, dict[str, Tensor]], config: Path, tiny_sdxl: Path
) -> None:
    file = config.parent / f"MODEL{ending}"
    save_file(written["sdxl"], file)
    base = {"model": str(file), "config": str(config)}
    found = list(look_at_base(recipe(tiny_sdxl, config.parent, base=base)))
    assert [one.level for one in found] == ["ok"]
    assert load_pipeline(FAMILIES["sdxl"], Base(**base), parts=("denoiser",)).unet is not None
