"""The shipped recipes through real processes: train, preview, sample, look at what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from training_runs import ROOT, tlora

NAMES = ("sdxl", "flux", "flux2", "z_image", "qwen_image", "sd3", "krea2", "qwen_image_21")
FAMILIES = {name: f"tiny_{name}" for name in NAMES}
SHORT = (
    *("train.steps=4", "train.checkpoint.every=2", "train.preview.every=2", "sampling.steps=3"),
    "train.optimizer={name: adamw, lr: 0.01}",  # large: two steps must show in eight bits
)


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=() if f == "sdxl" else pytest.mark.full) for f in FAMILIES],
)
def test_train_then_sample(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    base: Path = request.getfixturevalue(FAMILIES[family])
    run = tmp_path / "run"
    overrides = [f"--set={pair}" for pair in (f"base={base}", f"output.dir={run}", *SHORT)]
    trained = tlora("train", "--config", ROOT / "configs" / f"tiny_{family}.yaml", *overrides)
    assert trained.returncode == 0, trained.stderr
    assert f"adapter: {run / 'adapter.safetensors'}" in trained.stdout
    assert "step 4/4  loss " in trained.stderr
    assert "Loading" not in trained.stderr  # no load bars, no notices of libraries
    assert "torchvision" not in trained.stderr
    assert sorted(path.name for path in run.iterdir()) == [
        ".lock",
        "about.json",
        "adapter.safetensors",
        "checkpoints",
        "metrics.jsonl",
        "previews",
        "recipe.yaml",
        "report.html",
        "tensorboard",
        "training_pictures",
    ]
    assert [path.name for path in sorted((run / "previews").iterdir())] == [
        "step-000000",
        "step-000002",
        "step-000004",
    ]

    # The header alone says base, size and settings; the preview's prompt and seed give its picture.
    [preview, *_] = sorted((run / "previews" / "step-000004").iterdir())
    sheet = ("--count", 2, "--contact-sheet", "--output", tmp_path / "out")
    prompt = "a photo of a V* in the snow"
    sampled = tlora("sample", "--adapter", run / "adapter.safetensors", "--prompt", prompt, *sheet)
    assert sampled.returncode == 0, sampled.stderr
    pictures = sorted((tmp_path / "out").iterdir())
    assert [p.name for p in pictures] == [
        "0000_a-photo-of-a-sks-dog-in-the-snow_seed0.png",
        "0001_a-photo-of-a-sks-dog-in-the-snow_seed1.png",
        "0002_contact_sheet.png",
    ]
    assert np.abs(pixels(preview).astype(int) - pixels(pictures[0]).astype(int)).max() <= 1
    assert not np.array_equal(pixels(pictures[0]), pixels(pictures[1]))
    with Image.open(pictures[1]) as picture:
        about = json.loads(picture.text["tlora"])
        assert picture.text["parameters"].startswith("a photo of a sks dog in the snow\n")
    assert about["prompt"] == "a photo of a sks dog in the snow"
    assert (about["seed"], about["steps"], about["width"]) == (1, 3, 64)
    assert (about["base"], about["rank"], about["min_rank"]) == (str(base), 4, about["min_rank"])
    checkpoint = run / "checkpoints" / "checkpoint-000002" / "adapter.safetensors"
    again = tlora(
        *("sample", "--adapter", checkpoint, "--prompt", prompt, "--output", tmp_path / "early")
    )
    assert again.returncode == 0, again.stderr
    [early] = sorted((tmp_path / "early").iterdir())
    [seen, *_] = sorted((run / "previews" / "step-000002").iterdir())
    assert np.abs(pixels(early).astype(int) - pixels(seen).astype(int)).max() <= 1
    assert not np.array_equal(pixels(early), pixels(preview))


def test_sampling_options(tiny_sdxl: Path, tmp_path: Path) -> None:
    """Prompts from a file, settings over those of the file, batches, scale."""
    from training_runs import run

    adapter = run(tiny_sdxl, tmp_path, train__steps=2).adapter
    assert adapter is not None
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("# two prompts\na {concept} on a beach\n\nV* at night\n")

    def sample(name: str, *options: object) -> list[Path]:
        fixed = ("--adapter", adapter, "--prompts-file", prompts, "--steps", 3, "--guidance", 3)
        done = tlora("sample", *fixed, *options, "--output", tmp_path / name)
        assert done.returncode == 0, done.stderr
        return sorted((tmp_path / name).iterdir())

    alone = sample("alone", "--width", 96, "--scheduler", "ddim", "--negative-prompt", "blurry")
    together = sample(
        *("together", "--width", 96, "--scheduler", "ddim", "--negative-prompt", "blurry"),
        *("--batch-size", 2),
    )
    assert [p.name for p in alone] == [p.name for p in together]
    assert "a-sks-dog-on-a-beach" in alone[0].name
    for a, b in zip(alone, together, strict=True):
        assert pixels(a).shape == (64, 96, 3)
        assert np.abs(pixels(a).astype(int) - pixels(b)).max() <= 1


def test_the_header_says_all(tiny_sdxl: Path, tmp_path: Path) -> None:
    from training_runs import run

    adapter = run(tiny_sdxl, tmp_path, train__steps=2).adapter
    assert adapter is not None
    with safe_open(adapter, "pt") as file:
        header = file.metadata()
    expected = {
        "tlora.method": "tlora",
        "tlora.rank": "4",
        "tlora.min_rank": "2",
        "tlora.alpha": "1.0",
        "tlora.schedule": "linear",
        "tlora.num_train_timesteps": "1000",
        "tlora.timestep_scale": "1.0",
        "tlora.base_model": str(tiny_sdxl),
        "tlora.placeholder": "sks",
        "tlora.class_name": "dog",
        "tlora.train_steps": "2",
    }
    assert {key: header.get(key) for key in expected} == expected
    assert json.loads(header["lora_adapter_metadata"])["unet.r"] == 8
    assert json.loads(header["tlora.recipe"])["train"]["steps"] == 2
    assert set(json.loads(header["tlora.versions"])) == {"tlora", "torch", "diffusers"}
