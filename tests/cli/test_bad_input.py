"""What people get wrong: one short message with the remedy, a status, nothing overwritten.

Each case goes through the command line's own `main`. Recipe mistakes that are found before a model
is loaded are in test_recipe_command.py, adapter files of every wrong kind in test_bad_files.py.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_runs import draw_picture, mounted, recipe_values, write_recipe

from tlora_cli.cli.app import main
from tlora_cli.foundation.errors import Status, UserError

Cli = Callable[..., str]


def refused_training(
    cli: Cli, tiny: Path, folder: Path, status: Status = Status.MISTAKE, **changes: Any
) -> str:
    message = cli("train", "--config", write_recipe(tiny, folder, **changes), status=status)
    assert not (folder / "run" / "adapter.safetensors").exists()
    return message


# --- recipes ------------------------------------------------------------------------------------

RECIPES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "misspelt key": ({"train__stepps": 5}, ["train.stepps", "did you mean `train.steps`?"]),
    "wrong type": ({"train__steps": "many"}, ["train.steps", "must be a whole number", "'many'"]),
    "rank above width": (
        {"adapter": {"rank": 100, "min_rank": 2}},
        ["rank 100 is above the width", "of layer", "choose a rank of at most"],
    ),
    "min_rank above rank": ({"adapter": {"rank": 4, "min_rank": 9}}, ["min_rank", "9", "4"]),
    "no layer matched": (
        {"adapter__targets": "decoder.*"},
        ["no linear layer of the sdxl unet matches", "'decoder.*'", "such as"],
    ),
    "base not found": (
        {"base": "no/such/folder"},
        ["base not found: no/such/folder", "give an existing folder or file, a Hub id"],
    ),
    "base not on the hub": (
        {"base": "nobody/no-such-model"},
        ["nobody/no-such-model is not on this machine and the Hub can't be reached", "hf download"],
    ),
    "quantization without a GPU": (
        {"train__quantization": "nf4", "train__device": "auto"},
        ["quantization nf4 needs a CUDA GPU", "drop it"],
    ),
    "xformers without a GPU": (
        {"train__attention": "xformers", "train__device": "auto"},
        ["xformers attention can't be used", "sdpa"],
    ),
    "8-bit without a GPU": (
        {"train__optimizer": {"name": "adamw8bit"}, "train__device": "auto"},
        ["adamw8bit needs a CUDA GPU", "use adamw"],
    ),
    "fp16 without a GPU": (
        {"train__precision": "fp16", "train__device": "auto"},
        ["fp16 needs a GPU", "use fp32 or bf16"],
    ),
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="some cases are about a machine without GPU")
@pytest.mark.parametrize("case", RECIPES)
def test_recipes(cli: Cli, tiny_sdxl: Path, tmp_path: Path, case: str) -> None:
    changes, words = RECIPES[case]
    lacking = ("not" in case and "base" in case) or "without a GPU" in case
    status = Status.MISSING if lacking else Status.MISTAKE
    message = refused_training(cli, tiny_sdxl, tmp_path / "case", status, **changes)
    for word in words:
        assert word in message


def test_base_of_another_family(cli: Cli, tiny_flux: Path, tmp_path: Path) -> None:
    message = refused_training(cli, tiny_flux, tmp_path / "case", family="sdxl")
    assert "is a FluxPipeline, not a sdxl model" in message
    assert "set family: flux, or change the base" in message


def test_folder_that_is_no_model(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refused_training(cli, tmp_path / "empty", tmp_path / "case")
    assert "holds no diffusers model: model_index.json is missing" in message


def test_base_with_damaged_weights(cli: Cli, tiny_sdxl: Path, tmp_path: Path) -> None:
    base = tmp_path / "tiny-sdxl"
    shutil.copytree(tiny_sdxl, base)
    weights = next((base / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:5000])
    message = refused_training(cli, base, tmp_path / "case")
    assert f"the base model {base} can't be loaded" in message
    assert "download it again" in message


# --- pictures -----------------------------------------------------------------------------------


def bomb(path: Path) -> None:
    """Write a PNG of a few bytes that claims 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        crc = zlib.crc32(name + body)
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)
    path.write_bytes(data)


def truncated(path: Path) -> None:
    draw_picture(path)
    path.write_bytes(path.read_bytes()[:900])


PICTURES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "there is no file"),
    "truncated": (truncated, "can't be read"),
    "no picture": (lambda path: path.write_text("hello"), "can't be read"),
    "image bomb": (bomb, "it has more than 110 million pixels"),
    "empty folder": (lambda path: path.mkdir(), "no picture"),
}


@pytest.mark.parametrize("case", PICTURES)
def test_pictures(cli: Cli, tiny_sdxl: Path, tmp_path: Path, case: str) -> None:
    make, words = PICTURES[case]
    picture = tmp_path / "bad.png"
    make(picture)
    concept = {"images": str(picture), "class": "dog"}
    message = refused_training(cli, tiny_sdxl, tmp_path / "case", concept=concept)
    assert str(picture) in message
    assert words in message, message
    assert "concept.images" in message


# --- folders and disks --------------------------------------------------------------------------


def test_output_folder_with_another_run(
    cli: Cli, tiny_sdxl: Path, tmp_path: Path, trained: Path
) -> None:
    (tmp_path / "case").mkdir()
    shutil.copytree(trained.parent, tmp_path / "case" / "run")
    before = {p: p.read_bytes() for p in (tmp_path / "case" / "run").rglob("*") if p.is_file()}
    message = cli("train", "--config", write_recipe(tiny_sdxl, tmp_path / "case"))
    assert "already holds a run" in message
    assert "--resume" in message
    after = {p: p.read_bytes() for p in (tmp_path / "case" / "run").rglob("*") if p.is_file()}
    assert after == before


def test_samples_never_overwrite(trained: Path, tmp_path: Path, monkeypatch: Any) -> None:
    for _ in range(2):
        arguments = ["--prompt", "a V*", "--steps", "2", "--output", str(tmp_path / "out")]
        monkeypatch.setattr("sys.argv", ["tlora", "sample", "--adapter", str(trained), *arguments])
        assert main() == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["0000_a-sks-dog_seed0.png", "0001_a-sks-dog_seed0.png"]


def test_nothing_to_resume(cli: Cli, tmp_path: Path) -> None:
    message = cli("train", "--resume", "--output", tmp_path / "nowhere")
    assert "the folder holds no run to resume" in message


def test_an_output_folder_that_is_a_file(cli: Cli, tiny_sdxl: Path, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("precious")
    message = refused_training(cli, tiny_sdxl, tmp_path / "case", output__dir=str(target))
    assert "cannot write file" in message
    assert target.read_text() == "precious"


def test_too_little_space_is_known_before_training(
    cli: Cli, tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = refused_training(cli, tiny_sdxl, tmp_path / "case", Status.NO_ROOM)
    assert "not enough disk space for the run's checkpoints" in message
    assert "1 MB free" in message
    assert not (tmp_path / "case" / "run" / "metrics.jsonl").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a real file system of 4 MB."""
    with mounted(tmp_path / "disk", "4m") as disk:
        yield disk


def test_a_disk_that_fills_up_keeps_the_checkpoint_before(
    cli: Cli, tiny_sdxl: Path, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The space check passes (others fill the disk meanwhile); the writing itself must hold."""
    from tlora_cli.training import state
    from tlora_cli.training.state import checkpoints

    monkeypatch.setattr(state, "require_space", lambda *arguments: None)
    settings = {
        "output__dir": str(small_disk / "run"),
        "train__checkpoint": {"every": 1, "keep": 50},
        "train__steps": 50,
    }
    recipe = write_recipe(tiny_sdxl, tmp_path / "case", **settings)
    message = cli("train", "--config", recipe, status=Status.NO_ROOM)
    assert "No space left on device" in message
    again = f"tlora train --resume --output {small_disk / 'run'}"
    assert f"free disk space, then go on with: {again}" in message
    kept = checkpoints(small_disk / "run" / "checkpoints")
    assert len(kept) >= 2
    for path in kept:
        assert load_file(path / "adapter.safetensors")
        torch.load(path / "training_state.pt", weights_only=True)
    left = [p.name for p in (small_disk / "run" / "checkpoints").iterdir()]
    assert not any(name.startswith(".tlora-unfinished-") for name in left)


def test_a_disk_without_a_byte_left_is_told_of_archives_too(small_disk: Path) -> None:
    """torch.save then raises a RuntimeError that names no disk."""
    from tlora_cli.foundation.files import write_atomically

    with contextlib.suppress(OSError), (small_disk / "rest").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    tensors = {"a": torch.zeros(100_000)}
    with pytest.raises(UserError, match="No space left on device") as caught:
        write_atomically(small_disk / "state.pt", lambda part: torch.save(tensors, part))
    assert "free disk space" in caught.value.do
    assert not (small_disk / "state.pt").exists()


def test_other_errors_of_writing_stay_what_they_are(tmp_path: Path) -> None:
    from tlora_cli.foundation.files import write_atomically

    def fails(part: Path) -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        write_atomically(tmp_path / "state.pt", fails)


def test_a_read_only_disk(cli: Cli, tiny_sdxl: Path, tmp_path: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    folder = small_disk / "run"
    message = refused_training(cli, tiny_sdxl, tmp_path / "case", output__dir=str(folder))
    assert "Read-only file system" in message
    assert "choose a folder on a disk that can be written" in message


def test_unknown_keys_are_found_without_loading_anything(cli: Cli, tmp_path: Path) -> None:
    values = recipe_values(Path("no-base"), tmp_path)
    values["nonsense"] = 1
    (tmp_path / "r.yaml").write_text(str(values).replace("'", '"').replace("False", "false"))
    assert "nonsense" in cli("train", "--config", tmp_path / "r.yaml")
