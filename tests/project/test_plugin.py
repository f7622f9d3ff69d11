"""A package from outside adds a method, a schedule, a family and a format: one file each.

It is installed as a user would install it, and used through the command line. docs/architecture.md
shows its files; they are these.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_auraflow import write_tiny_auraflow
from training_runs import ROOT, draw_picture, fork_server

SOURCE = ROOT / "tests" / "plugin"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the package is installed into."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(SOURCE, folder / "source")  # building writes beside the source
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--target", str(folder / "site"), str(folder / "source")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / "site"


def call(plugin: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line with the package installed, in an interpreter of its own."""
    environment = {**os.environ, "PYTHONPATH": f"{plugin}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "tlora_cli", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def tlora(plugin: Path, *arguments: object) -> str:
    """Run the command line with the package installed; return what it prints."""
    path = f"{plugin}{os.pathsep}{ROOT}"
    words = [str(argument) for argument in arguments]
    done = fork_server(path).run(words, str(ROOT), {**os.environ, "PYTHONPATH": path}, 300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with the method, the schedule and the family that were added."""
    folder = tmp_path_factory.mktemp("run")
    recipe = {
        "family": "auraflow",
        "base": str(write_tiny_auraflow(folder / "tiny-auraflow")),
        "concept": {"images": str(draw_picture(folder / "photo.png")), "class": "dog"},
        "adapter": {"method": "lora_fa", "rank": 4, "schedule": {"kind": "halves"}},
        "train": {
            "steps": 4,
            "resolution": 64,
            "precision": "fp32",
            "device": "cpu",
            "optimizer": {"lr": 1e-2},
            "checkpoint": {"every": 2},
            "preview": {"every": 4, "prompts": ["a V* in the snow"]},
        },
        "sampling": {"steps": 3},
        "output": {"dir": str(folder / "run"), "trackers": []},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    tlora(plugin, "train", "--config", folder / "recipe.yaml")
    return folder / "run"


def test_what_was_added_is_listed(plugin: Path) -> None:
    schema = json.loads(tlora(plugin, "recipe", "schema"))
    assert "auraflow" in schema["properties"]["family"]["enum"]
    adapter = schema["$defs"]["AdapterConfig"]["properties"]
    assert "lora_fa" in adapter["method"]["enum"]
    assert "LoRA with A frozen" in adapter["method"]["description"]
    assert "halves" in schema["$defs"]["ScheduleConfig"]["properties"]["kind"]["enum"]


def test_it_trains_and_says_so_in_its_file(run: Path) -> None:
    with safe_open(run / "adapter.safetensors", "pt") as file:
        header = file.metadata()
    assert header["tlora.family"] == "auraflow"
    assert header["tlora.method"] == "lora_fa"
    assert (header["tlora.schedule"], header["tlora.min_rank"]) == ("halves", "2")
    last = run / "checkpoints" / "checkpoint-000004"
    moments = torch.load(last / "training_state.pt", weights_only=True)["optimizer"]["state"]
    trained, start = (
        load_file(one) for one in (last / "adapter.safetensors", last.parent / "start.safetensors")
    )
    assert len(moments) == len(trained) == len(start) > 5, "A is no parameter"
    assert all(key.endswith(".B") and tensor.any() for key, tensor in trained.items())
    assert list((run / "previews").glob("step-000004/*.png"))


def test_it_resumes_to_the_same_bits(plugin: Path, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoints" / "checkpoint-000004")
    (folder / "adapter.safetensors").unlink()
    tlora(plugin, "train", "--resume", "--output", folder)
    before, after = (load_file(one / "adapter.safetensors") for one in (run, folder))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_it_samples_and_the_schedule_matters(plugin: Path, run: Path, tmp_path: Path) -> None:
    pictures = []
    for name, more in (("masked", []), ("least", ["--min-rank", "1"])):
        out = tmp_path / name
        tlora(
            plugin,
            "sample",
            "--adapter",
            run / "adapter.safetensors",
            "--prompt",
            "a V* in the snow",
            "--scale",
            "20",
            "--output",
            out,
            *more,
        )
        pictures.append(next(out.glob("*.png")).read_bytes())
    assert pictures[0] != pictures[1]


@pytest.mark.full
def test_its_format_is_written_and_read(plugin: Path, run: Path, tmp_path: Path) -> None:
    flat, back = tmp_path / "flat.safetensors", tmp_path / "back.safetensors"
    adapter, base = run / "adapter.safetensors", run.parent / "tiny-auraflow"
    tlora(plugin, "convert", adapter, "--to", "flat", "--base", base, "--output", flat)
    tensors, source = load_file(flat), load_file(adapter)
    assert len(tensors) == len(source)
    for key, tensor in tensors.items():
        layer, _, part = key.rpartition("/")
        own = {"down": "lora_A", "up": "lora_B"}[part]
        assert torch.equal(tensor, source[f"transformer.{layer}.{own}.weight"])
    tlora(plugin, "convert", flat, "--to", "tlora", "--base", base, "--output", back)
    assert all(torch.equal(tensor, load_file(back)[key]) for key, tensor in source.items())


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("tlora_broken:NOTHING", "can't be imported: AttributeError"),
        ("tlora_absent:SPEC", "can't be imported: ModuleNotFoundError"),
    ],
)
def test_a_package_that_fails_is_named(point: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "tlora_broken.py").write_text("")
    info = tmp_path / "tlora_broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tlora-broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[tlora.families]\nbroken = {point}\n")
    done = call(tmp_path, "recipe", "schema")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "the package tlora-broken adds 'broken' to tlora.families" in done.stderr
    assert said in done.stderr


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    info = tmp_path / "tlora_twin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tlora-twin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[tlora.methods]\ntlora = tlora_twin:TLORA\n")
    done = call(tmp_path, "recipe", "schema")
    assert done.returncode == 2
    assert "the package tlora-twin adds 'tlora' to tlora.methods, and that name is taken" in (
        done.stderr
    )
