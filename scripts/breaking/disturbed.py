"""Commands that are disturbed: signals at any moment, also as process 1; read-only or full folders.

Each command runs in a fork of this process, where everything is imported, in a folder of its own.
It must end with a documented status, say what happened without a traceback, and leave nothing half
written.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tlora_cli.cli.app import main
from tlora_cli.foundation.errors import Status
from tlora_cli.foundation.files import TEMPORARY

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
MOMENTS = (0.02, 0.25, 0.5, 0.75, 0.95)
"""Shares of the time that a command takes undisturbed."""
NEW_PIDS = 0x20000000
"""CLONE_NEWPID of Linux: the next child is process 1."""
PATIENCE = 300
"""Seconds that a command may take at most."""


@dataclass(frozen=True)
class Desk:
    """The files that the commands work on.

    Attributes:
        base: a small base model.
        adapter: trained on it.
        run: the run folder of that adapter.
        folder: of all that is written; others are read.
    """

    base: Path
    adapter: Path
    run: Path
    folder: Path


@dataclass(frozen=True)
class Ended:
    """The end of a command.

    Attributes:
        status: exit status; negative for a signal that killed it.
        said: all that it printed.
        seconds: that it took.
        left: files that are new, from its folder down.
    """

    status: int
    said: str
    seconds: float
    left: list[str]

    def faults(self, allowed: tuple[int, ...]) -> list[str]:
        """Return what should not have been; empty if all is in order."""
        found = [] if self.status in allowed else [f"status {self.status}"]
        found += [w for w in ("Traceback", "Exception ignored", "internal error") if w in self.said]
        found += [f"left {name}" for name in self.left if TEMPORARY in name]
        if self.status and not any(w in self.said for w in ("error: ", "stopped by ", "problem ")):
            found.append("no word")
        return found

    @property
    def headline(self) -> str:
        """The first line that says why it has ended."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        told = [line for line in lines if line.startswith(("error: ", "stopped by ", "problem "))]
        return (told or lines or [""])[0][:110]


def recipe(desk: Desk, output: Path) -> dict[str, Any]:
    """Return the recipe of a short run with places, class pictures and previews."""
    return {
        "family": "sdxl",
        "base": str(desk.base),
        "concept": {"images": str(photo(desk.folder)), "class": "dog", "prior": {"count": 2}},
        "adapter": {"rank": 4, "min_rank": 2},
        "train": {
            **{"steps": 8, "resolution": 64, "precision": "fp32", "device": "cpu"},
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "checkpoint": {"every": 4, "keep": 2},
            "preview": {"every": 4, "prompts": ["a V*"], "count": 2},
        },
        "sampling": {"steps": 2},
        "output": {"dir": str(output), "trackers": ["tensorboard"]},
    }


def photo(folder: Path, seed: int = 0) -> Path:
    """Write a picture beside the folders of commands, and return it."""
    path = folder.parent / f"photo{seed}.png"
    if not path.exists():
        small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(np.uint8)
        Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC).save(path)
    return path


def _file(desk: Desk, name: str, data: Any) -> Path:
    path = desk.folder.parent / name
    path.write_text(json.dumps(data))  # JSON is YAML
    return path


def _grid(desk: Desk, output: Path) -> Path:
    short = recipe(desk, output)
    for key in ("concept", "adapter", "output"):
        del short[key]
    prompts = _file(desk, "prompts.json", ["a V* in the snow"])
    concept = {"name": "toy", "images": str(photo(desk.folder)), "class": "dog"}
    return _file(
        desk,
        "grid.yaml",
        {
            "recipe": {**short, "output": {"trackers": []}},
            "output": str(output),
            "grid": {"method": ["lora"], "rank": [2], "concept": [concept], "seed": [0]},
            "evaluate": {
                **{"metrics": ["clip=toy-clip"], "prompts": str(prompts), "count": 1},
                **{"base_count": 1, "free_count": 0, "batch_size": 1, "mask": "none"},
            },
        },
    )


def _list(desk: Desk) -> Path:
    path = desk.folder.parent / "list.csv"
    path.write_text(f"photo,class\n{photo(desk.folder)},dog\n{photo(desk.folder, 1)},dog\n")
    return path


def _comfyui(output: Path) -> Path:
    with contextlib.suppress(OSError):
        (output / "custom_nodes").mkdir(parents=True)
    return output


Words = Callable[[Desk, Path], list[Any]]
COMMANDS: dict[str, Words] = {
    "train": lambda desk, out: ["train", _file(desk, "recipe.yaml", recipe(desk, out))],
    "init": lambda desk, out: [
        *("init", "toy:momo/1", "--class", "cat", "--base", "toy-sdxl", "--yes"),
        *("--output", out / "momo.yaml"),
    ],
    "validate": lambda desk, out: ["validate", _file(desk, "recipe.yaml", recipe(desk, out))],
    "sample": lambda desk, out: [
        *("sample", "--adapter", desk.adapter, "--prompt", "V*", "--count", 4, "--steps", 4),
        *("--output", out),
    ],
    "evaluate": lambda desk, out: [
        *("evaluate", "--adapter", desk.adapter, "--output", out / "scores", "--mask", "none"),
        *("--metric", "clip=toy-clip", "--count", 1, "--base-count", 1),
    ],
    "compare": lambda desk, out: ["compare", _grid(desk, out / "runs")],
    "batch": lambda desk, out: [
        *("batch", _list(desk), "--config", _file(desk, "recipe.yaml", recipe(desk, out))),
        *("--output", out / "runs"),
    ],
    "convert": lambda desk, out: [
        *("convert", desk.adapter, "--to", "kohya", "--output", out / "k.safetensors"),
    ],
    "merge": lambda desk, out: ["merge", desk.adapter, "--output", out / "merged"],
    "publish": lambda desk, out: [
        *("publish", desk.adapter, "--output", out / "page", "--license", "openrail++"),
        *("--base", "stabilityai/stable-diffusion-xl-base-1.0"),
    ],
    "analyze": lambda desk, out: ["analyze", "--adapter", desk.adapter, "--output", out / "a"],
    "mask": lambda desk, out: ["mask", "toy:momo/1", "--out", out],
    "toyworld draw": lambda desk, out: [
        *("toyworld", "draw", "--count", 4, "--output", out / "drawings"),
    ],
    "comfyui": lambda desk, out: ["comfyui", _comfyui(out / "ui")],
}
"""Name -> its words, of the files it reads and the folder it writes into."""


def run(
    words: list[Any],
    folder: Path,
    number: signal.Signals | None = None,
    after: float = 0.0,
    first: bool = False,
) -> Ended:
    """Run a command in a fork of this process.

    Args:
        words: its arguments.
        folder: that it writes into.
        number: the signal to send; None to let it end.
        after: seconds before that.
        first: whether it is process 1 of a namespace, which needs root.
    """
    before = _files(folder)
    opened, name = tempfile.mkstemp()
    os.close(opened)
    log = Path(name)
    reading, writing = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            if first and ctypes.CDLL(None, use_errno=True).unshare(NEW_PIDS):
                os._exit(99)
            command = os.fork()
            if command == 0:
                os.close(writing)
                _be(words, log)
            os.write(writing, b"%d" % command)
            os.close(writing)
            ended = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
            os._exit(ended if ended >= 0 else 64 - ended)
        finally:
            os._exit(98)
    os.close(writing)
    target = os.read(reading, 20)
    os.close(reading)
    if number is not None and target:
        time.sleep(after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(target), number)
    status = _wait(child, int(target or 0))
    said = log.read_text("utf-8", errors="replace")
    log.unlink()
    status = 64 - status if 64 < status < 98 else status
    return Ended(status, said, time.monotonic() - began, sorted(_files(folder) - before))


def _be(words: list[Any], log: Path) -> None:
    """Be the command; does not return."""
    status = 1
    try:
        opened = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(opened, 1)
        os.dup2(opened, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = ["tlora", *map(str, words)]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        status = main()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _wait(child: int, command: int) -> int:
    """Return the exit status; a command that doesn't end is killed, and its status is 97."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(command, signal.SIGKILL)
    os.waitpid(child, 0)
    return 97


def _files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir()}


# --- folders --------------------------------------------------------------------------------------


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """Yield a folder on a file system that nobody can write, root included."""
    with _file_system(folder, "64m"):
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[Path]:
    """Yield a folder on a disk without a byte left, with an empty one of ComfyUI's."""
    with _file_system(folder, "1m"):
        _comfyui(folder / "out" / "ui")
        with (
            contextlib.suppress(OSError),
            (folder / "others").open("wb", buffering=0) as file,
        ):
            while file.write(bytes(4096)):
                pass
        yield folder / "out"


@contextlib.contextmanager
def _file_system(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        raise PermissionError("mounting a small file system needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def expected(kind: str, number: signal.Signals | None = None) -> tuple[int, ...]:
    """Return the statuses that are in order: a command may have ended before a signal came."""
    if number is not None:
        return (Status.DONE, 128 + number)
    refused = (Status.MISTAKE, Status.LATER)
    return {"full": (Status.NO_ROOM,), "read-only": refused, "alone": (Status.DONE,)}[kind]
