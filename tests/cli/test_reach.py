"""`adapter.targets` by name, as a user meets it: train, resume, sample, convert, merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapter_files import command
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import load_file
from small_denoisers import stir
from training_runs import moved, run, same_tensors, write_recipe
from validations import validate

from tlora_cli import UserError, attach
from tlora_cli.families import FAMILIES
from tlora_cli.formats import AdapterInfo, read_adapter
from tlora_cli.injection.load import load_adapter
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.reading import parse_recipe
from tlora_cli.tools.preflight.memory import attach_planned, planned_denoiser

CONVOLUTION = "down_blocks.1.resnets.0.conv1"


@pytest.fixture
def folders(tiny_sdxl: Path, tiny_flux: Path) -> dict[str, Path]:
    return {"sdxl": tiny_sdxl, "flux": tiny_flux}


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("sdxl", "all"),
        ("flux", "all"),
        pytest.param("sdxl", "linear", marks=pytest.mark.full),
        pytest.param("flux", "linear", marks=pytest.mark.full),
    ],
)
def test_train_and_sample(
    family: str, targets: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    recipe = write_recipe(folders[family], tmp_path, adapter__targets=targets, train__steps=2)
    command("train", "--config", recipe)
    adapter = tmp_path / "run" / "adapter.safetensors"
    tensors, kind = load_file(adapter), FAMILIES[family]
    denoiser = planned_denoiser(parse_recipe(recipe.read_text(), "recipe"))
    layers = kind.target_layers(denoiser, targets)
    assert len(tensors) == 2 * len(layers)
    for name, layer in layers.items():
        down, up = (tensors[f"{kind.denoiser}.{name}.lora_{part}.weight"] for part in "AB")
        product = (up.flatten(1) @ down.flatten(1)).view(layer.weight.shape)
        if targets == "all" and family == "sdxl" and name == CONVOLUTION:
            assert down.shape == (8, *layer.weight.shape[1:]) and up.shape[1:] == (8, 1, 1)
        assert product.abs().max() > 0, name
    pictures = tmp_path / "pictures"
    command("sample", "--adapter", adapter, "--prompt", "a photo of V*", "--output", pictures,
            "--steps", "2", "--width", "64", "--height", "64")  # fmt: skip
    [picture] = pictures.glob("*0.png")
    assert Image.open(picture).size == (64, 64)


@pytest.mark.parametrize(
    ("family", "method"),
    [("sdxl", "tlora"), pytest.param("flux", "vanilla_tlora", marks=pytest.mark.full)],
)
def test_a_run_on_all_layers_resumes_bit_for_bit(
    family: str, method: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    own = {"method": method, "rank": 4, "min_rank": 2, "targets": "all"}
    for name in ("whole", "halves"):
        write_recipe(folders[family], tmp_path / name, adapter=own)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    command("train", "--config", whole / "recipe-in.yaml")
    command("train", "--config", halves / "recipe-in.yaml", "--set", "train.steps=4")
    command("train", "--config", halves / "recipe-in.yaml", "--resume")
    first, second = (folder / "run" / "adapter.safetensors" for folder in (whole, halves))
    assert moved_convolutions(first) or family == "flux"
    assert same_tensors(first, second)


def moved_convolutions(adapter: Path) -> bool:
    """Whether training changed a convolution."""
    tensors = load_file(adapter)
    stem = f"unet.{CONVOLUTION}"
    if f"{stem}.lora_A.weight" not in tensors:
        return False
    down, up = (tensors[f"{stem}.lora_{part}.weight"].flatten(1) for part in "AB")
    return bool((up @ down).abs().max() > 0)


def test_attention_by_name_is_the_run_without_the_key(tiny_sdxl: Path, tmp_path: Path) -> None:
    one = run(tiny_sdxl, tmp_path / "one", train__steps=2)
    two = run(tiny_sdxl, tmp_path / "two", train__steps=2, adapter__targets="attention")
    assert one.adapter and two.adapter
    assert moved(one.adapter) and same_tensors(one.adapter, two.adapter)


def drawn(pipeline: Any) -> Any:
    """Return a picture of the stock pipeline, in numbers 0..1."""
    pipeline.set_progress_bar_config(disable=True)
    chance = torch.Generator().manual_seed(3)
    return pipeline(
        "a photo of sks dog", width=64, height=64, num_inference_steps=3, guidance_scale=3.0,
        generator=chance, output_type="np",
    ).images[0]  # fmt: skip


@pytest.mark.parametrize("method", [pytest.param("lora", marks=pytest.mark.full), "ortho_lora"])
def test_stock_diffusers_and_a_merged_base_draw_the_same_picture(
    method: str, tiny_sdxl: Path, tmp_path: Path
) -> None:
    """To 1e-5, from our own file, diffusers' and kohya's, and from the merged folder."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    bare = drawn(pipeline)
    info = AdapterInfo(base_model=str(tiny_sdxl), placeholder="sks", class_name="dog")
    adapter = stir(attach(pipeline, method, 4, targets="all", info=info), 0.05)
    ours = tmp_path / "ours.safetensors"
    adapter.save(ours)
    expected = drawn(pipeline)
    adapter.remove()
    assert np.abs(expected - bare).max() > 0.02
    again = load_adapter(pipeline, ours)
    assert np.abs(drawn(pipeline) - expected).max() < 1e-5
    again.remove()
    for target in ("diffusers", "kohya"):
        command("convert", ours, "--to", target, "--output", tmp_path / f"{target}.safetensors")
    for file in (ours, tmp_path / "diffusers.safetensors", tmp_path / "kohya.safetensors"):
        stock = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
        stock.load_lora_weights(file)
        assert np.abs(drawn(stock) - expected).max() < 1e-5, file.name
    command("merge", ours, "--output", tmp_path / "merged")
    merged = StableDiffusionXLPipeline.from_pretrained(tmp_path / "merged")
    assert np.abs(drawn(merged) - expected).max() < 1e-5


def test_narrow_layers_are_told_and_left_out(
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = {"rank": 40, "targets": "all"}
    file = write_recipe(tiny_sdxl, tmp_path, adapter=own, train__steps=1)
    denoiser = planned_denoiser(parse_recipe(file.read_text(), "recipe"))
    widths = {
        name: min(layer.weight.flatten(1).shape)
        for name, layer in FAMILIES["sdxl"].target_layers(denoiser, "all").items()
    }
    wide = {name for name, width in widths.items() if width >= 40}
    assert validate(monkeypatch, file) == 0
    printed = capsys.readouterr()
    left = f"{len(widths) - len(wide)} of the {len(widths)} layers are narrower than rank 40"
    assert printed.out.count(left) == 1 and left not in printed.err
    assert f"{len(wide)} layers are trained" in printed.out
    with pytest.warns(UserWarning, match=left):
        command("train", "--config", file)
    adapter = tmp_path / "run" / "adapter.safetensors"
    assert read_adapter(adapter, ()).layers.keys() == wide
    command("sample", "--adapter", adapter, "--prompt", "V*", "--output", tmp_path / "pictures",
            "--steps", "1", "--width", "64", "--height", "64")  # fmt: skip


def problem(**changes: Any) -> str:
    values: dict[str, Any] = {
        "family": "sdxl",
        "base": "some/base",
        "concept": {"images": "a.png", "class": "dog"},
        "output": {"dir": "run"},
        **changes,
    }
    with pytest.raises(Exception) as caught:
        Recipe.model_validate(values)
    return str(caught.value)


def test_what_can_t_be_is_told_with_the_recipe(tiny_sdxl: Path, tmp_path: Path) -> None:
    told = problem(adapter={"method": "oft", "targets": "all"})
    assert "adapter.targets: oft turns the two sides of a matrix" in told
    assert "use linear" in told
    file = write_recipe(tiny_sdxl, tmp_path, adapter={"method": "gsoft", "targets": "all"})
    with pytest.raises(UserError, match=r"adapter\.targets: gsoft turns"):
        command("train", "--config", file)


@pytest.mark.parametrize(
    ("family", "targets", "method", "trained"),
    [
        ("sdxl", "attention", "lora", 92_897_280),
        ("sdxl", "linear", "lora", 170_229_760),
        ("sdxl", "all", "lora", 196_751_360),
        ("sdxl", "all", "tlora", 196_751_360 + 788 * 64),
        ("flux", "attention", "lora", 48_562_176),
        ("flux", "all", "lora", 171_835_392),
    ],
)
def test_parameters_that_the_plan_of_a_real_base_counts(
    family: str, targets: str, method: str, trained: int
) -> None:
    """R (in k k + out) for each layer, and for the ortho form R more."""
    recipe = Recipe.model_validate(
        {
            "family": family,
            "base": FAMILIES[family].standard_base,
            "concept": {"images": "a.png", "class": "dog"},
            "adapter": {"method": method, "targets": targets},
            "output": {"dir": "run"},
        }
    )
    adapter = attach_planned(recipe, planned_denoiser(recipe))
    assert sum(parameter.numel() for parameter in adapter.parameters()) == trained
