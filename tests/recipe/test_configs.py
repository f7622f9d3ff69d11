"""The shipped recipes: they load, say what they do, and hold the published numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.reading import load_recipe

CONFIGS = sorted(
    path
    for path in (Path(__file__).parents[2] / "configs").glob("*.yaml")
    if "\ngrid:" not in path.read_text(encoding="utf-8")  # grids: test_grid.py
)

METHODS = {
    # name: method, rank, least rank, steps (method of the paper, section 5; published README)
    "sdxl_dog": ("tlora", 64, 32, 800),
    "sdxl_dog_lora": ("lora", 64, 64, 500),
    "sdxl_dog_vanilla_tlora": ("vanilla_tlora", 64, 32, 500),
    "sdxl_dog_ortho_lora": ("ortho_lora", 64, 64, 800),
    "flux_dog": ("vanilla_tlora", 32, 1, 500),
    "flux_dog_lora": ("lora", 32, 32, 400),
    "flux2_dog": ("vanilla_tlora", 32, 1, 500),
    "z_image_dog": ("vanilla_tlora", 32, 1, 500),
    "sd3_dog": ("vanilla_tlora", 32, 1, 500),
    "qwen_image_dog": ("vanilla_tlora", 32, 1, 500),
    "krea2_dog": ("vanilla_tlora", 32, 1, 500),
    "qwen_image_21_dog": ("vanilla_tlora", 32, 1, 500),
    "tiny_sdxl": ("tlora", 4, 2, 30),
    "tiny_flux": ("vanilla_tlora", 4, 2, 30),
    "tiny_flux2": ("vanilla_tlora", 4, 2, 30),
    "tiny_z_image": ("vanilla_tlora", 4, 2, 30),
    "tiny_sd3": ("vanilla_tlora", 4, 2, 30),
    "tiny_qwen_image": ("vanilla_tlora", 4, 2, 30),
    "tiny_krea2": ("vanilla_tlora", 4, 2, 30),
    "tiny_qwen_image_21": ("vanilla_tlora", 4, 2, 30),
    "toy_sdxl": ("tlora", 16, 8, 400),
    "toy_flux": ("vanilla_tlora", 16, 1, 400),
}


def named(name: str) -> Recipe:
    (path,) = [path for path in CONFIGS if path.stem == name]
    return load_recipe(path)


def test_all_are_found() -> None:
    assert len(CONFIGS) == len(METHODS)
    assert {path.stem for path in CONFIGS} == set(METHODS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_head_comment(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    head = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    for label in ("# Command: ", "# Expect: ", "# Takes: "):
        assert sum(line.startswith(label) for line in head) == 1, label
    (command,) = [line for line in head if line.startswith("# Command: ")]
    assert command.endswith(f"tlora train --config configs/{path.name}")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_loads_with_its_numbers(path: Path) -> None:
    r = load_recipe(path)
    a = r.adapter
    assert (a.method, a.rank, a.min_rank, r.train.steps) == METHODS[path.stem]
    assert path.stem.removeprefix("tiny_").removeprefix("toy_").startswith(r.family)
    assert (a.schedule.kind, a.schedule.alpha) == ("linear", 1.0)
    assert (a.init, a.init_std) == ("random_last", "1/r")
    assert r.concept.prompt == "a photo of {placeholder} {class}"
    class_name = "cat" if path.stem.startswith("toy") else "dog"
    assert (r.concept.placeholder, r.concept.class_name) == ("sks", class_name)
    assert (r.train.batch_size, r.train.accumulation) == (1, 1)
    assert r.output.dir == f"runs/{path.stem}"
    assert r.train.preview is not None
    assert all("V*" in prompt for prompt in r.train.preview.prompts)


@pytest.mark.parametrize("name", [name for name in METHODS if name.startswith("sdxl")])
def test_published_sdxl_settings(name: str) -> None:
    r = named(name)
    o = r.train.optimizer
    assert (o.name, o.lr, o.betas, o.weight_decay) == ("adamw", 1e-4, (0.9, 0.999), 1e-4)
    assert (r.train.max_grad_norm, r.train.resolution) == (None, 1024)
    assert (r.sampling.scheduler, r.sampling.steps, r.sampling.guidance) == ("euler", 25, 5.0)
    assert r.base.model == "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.mark.parametrize("name", ["flux_dog", "flux_dog_lora"])
def test_published_flux_settings(name: str) -> None:
    r = named(name)
    assert (r.train.optimizer.name, r.train.optimizer.lr) == ("prodigy", 1.0)
    assert (r.train.max_grad_norm, r.train.guidance, r.train.precision) == (1.0, 1.0, "bf16")
    assert (r.train.resolution, r.sampling.steps, r.sampling.guidance) == (1024, 28, 3.5)
    assert r.base.model == "black-forest-labs/FLUX.1-dev"


@pytest.mark.parametrize(
    ("family", "steps", "guidance", "base"),
    [
        ("flux2", 50, 4.0, "black-forest-labs/FLUX.2-klein-base-4B"),
        ("qwen_image", 50, 4.0, "Qwen/Qwen-Image"),
        ("z_image", 50, 5.0, "Tongyi-MAI/Z-Image"),
        ("sd3", 28, 7.0, "stabilityai/stable-diffusion-3.5-medium"),
        ("krea2", 28, 4.5, "krea/Krea-2-Raw"),
        ("qwen_image_21", 40, 4.0, "Qwen/Qwen-Image-2.1"),
    ],
)
def test_others_have_the_settings_of_their_pipeline_and_of_flux(
    family: str, steps: int, guidance: float, base: str
) -> None:
    r, flux = named(f"{family}_dog"), named("flux_dog")
    assert r.train.optimizer == flux.train.optimizer
    assert (r.train.max_grad_norm, r.train.resolution, r.train.precision) == (1.0, 1024, "bf16")
    assert (r.sampling.steps, r.sampling.guidance, r.base.model) == (steps, guidance, base)


@pytest.mark.parametrize(
    "family", ["sdxl", "flux", "flux2", "qwen_image", "z_image", "sd3", "krea2", "qwen_image_21"]
)
def test_tiny_settings(family: str) -> None:
    r = named(f"tiny_{family}")
    assert (r.base.model, r.concept.images) == (f"tiny-models/tiny-{family}", "assets/photo.jpg")
    assert (r.train.resolution, r.train.precision) == (64, "fp32")
