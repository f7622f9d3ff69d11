"""Every command on a disk without a byte left: what it says, its status, and what is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from compare_runs import grid_values, write_grid
from training_runs import mounted, write_recipe

from tlora_cli.cli import app, commands
from tlora_cli.cli.app import main
from tlora_cli.foundation.errors import Status


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """Yield a disk that others have filled."""
    with mounted(tmp_path / "disk", "1m") as disk:
        with contextlib.suppress(OSError), (disk / "others").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        yield disk


Made = Callable[[Path, Path, Path, Path], list[Any]]

COMMANDS: dict[str, Made] = {
    "train": lambda base, adapter, disk, tmp: [
        *("train", "--config", write_recipe(base, tmp, output__dir=str(disk / "run"))),
    ],
    "init": lambda base, adapter, disk, tmp: [
        *("init", "toy:momo/1", "--class", "cat", "--base", "toy-sdxl", "--yes"),
        *("--output", disk / "momo.yaml"),
    ],
    "sample": lambda base, adapter, disk, tmp: [
        *("sample", "--adapter", adapter, "--prompt", "V*", "--steps", 1, "--output", disk / "out"),
    ],
    "convert": lambda base, adapter, disk, tmp: [
        *("convert", adapter, "--to", "kohya", "--output", disk / "k.safetensors"),
    ],
    "convert to a folder": lambda base, adapter, disk, tmp: [
        *("convert", adapter, "--to", "peft", "--output", disk / "peft"),
    ],
    "merge": lambda base, adapter, disk, tmp: ["merge", adapter, "--output", disk / "merged"],
    "publish": lambda base, adapter, disk, tmp: [
        *("publish", adapter, "--output", disk / "page"),
        *("--base", "stabilityai/stable-diffusion-xl-base-1.0", "--license", "openrail++"),
    ],
    "analyze": lambda base, adapter, disk, tmp: [
        "analyze",
        "--adapter",
        adapter,
        "--output",
        disk / "a",
    ],
    "mask": lambda base, adapter, disk, tmp: ["mask", "toy:momo/1", "--out", disk / "masks"],
    "evaluate": lambda base, adapter, disk, tmp: [
        *("evaluate", "--adapter", adapter, "--output", disk / "scores", "--mask", "none"),
        *("--metric", "clip=toy-clip", "--count", 1, "--base-count", 1),
    ],
    "compare": lambda base, adapter, disk, tmp: [
        *("compare", write_grid(tmp / "g.yaml", grid_values(base, tmp, output=str(disk / "out")))),
    ],
    "toyworld draw": lambda base, adapter, disk, tmp: [
        *("toyworld", "draw", "--count", 1, "--output", disk / "drawings"),
    ],
    "comfyui": lambda base, adapter, disk, tmp: ["comfyui", comfyui(disk)],
}


def comfyui(disk: Path) -> Path:
    """Return a folder that looks like ComfyUI's, on a disk that is full again."""
    (disk / "others").unlink()
    (disk / "ui" / "custom_nodes").mkdir(parents=True)
    with contextlib.suppress(OSError):
        (disk / "others").write_bytes(bytes(shutil.disk_usage(disk).free))
    return disk / "ui"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.full if name in ("init", "mask") else ())
        for name in COMMANDS
    ],
)
def test_a_command_on_a_full_disk(
    name: str,
    full: Path,
    tiny_sdxl: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = COMMANDS[name](tiny_sdxl, trained, full, tmp_path)
    there = {file for file in full.rglob("*") if not file.is_dir()}
    capfd.readouterr()
    monkeypatch.setattr("sys.argv", ["tlora", *map(str, words)])
    status = main()
    said = "".join(capfd.readouterr())
    assert status == Status.NO_ROOM, said
    assert "Traceback" not in said and "Exception ignored" not in said
    message = said[said.rindex("error: ") :]
    assert "No space left on device" in message or "not enough disk space" in message
    assert "fix:   free disk space" in message and "--resume" not in message
    left = {file for file in full.rglob("*") if not file.is_dir()} - there
    assert {file.name for file in left} <= {".lock"}, left


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("debug", ["0", "1"])
def test_a_thread_that_fails_says_a_line(
    debug: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    def run(**_: object) -> None:
        thread = threading.Thread(target=fail, name="the writer of events")
        thread.start()
        thread.join()

    monkeypatch.setenv("TLORA_DEBUG", debug)
    monkeypatch.setattr(commands, "app", run)
    before = threading.excepthook
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", threading.__excepthook__)  # without pytest's own
        assert app.main() == 0
    assert threading.excepthook is before
    said = capfd.readouterr().err
    if debug == "1":
        assert "Traceback" in said
    else:
        line = "warning: the writer of events has ended early (OSError: [Errno 28] No space left"
        assert said.startswith(line) and said.count("\n") == 1


def test_tensorboard_on_a_full_disk(
    full: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its writer is a thread of its own, which Python would show with a traceback."""
    import numpy as np
    from torch.utils.tensorboard import SummaryWriter

    def run(**_: object) -> None:
        writer = SummaryWriter(str(full), flush_secs=0)
        noise = np.random.default_rng(0).integers(0, 255, (3, 256, 256), dtype=np.uint8)
        with contextlib.suppress(OSError):
            for step in range(20):
                writer.add_image("noise", noise, step)
                time.sleep(0.02)
        with contextlib.suppress(OSError):
            writer.close()

    (full / "others").unlink()
    (full / "others").write_bytes(bytes(shutil.disk_usage(full).free - 8192))
    monkeypatch.setattr(commands, "app", run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", threading.__excepthook__)
        assert app.main() == 0
    said = capfd.readouterr().err
    assert os.strerror(28) in said and "Traceback" not in said
