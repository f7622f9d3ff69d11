"""Short training runs on the tiny models, for the tests of training."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fork_server import Call, ForkServer
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, equal

from tlora_cli.families import FAMILIES
from tlora_cli.formats import read_adapter
from tlora_cli.recipe.models import Recipe
from tlora_cli.training.checkpoint_files import ADAPTER_FILE
from tlora_cli.training.loop import Outcome, train
from tlora_cli.training.metrics import StepRecord

ROOT = Path(__file__).parents[1]


def draw_picture(path: Path, seed: int = 0, size: int = 96) -> Path:
    """Write a random but smooth picture."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC).save(path)
    return path


def recipe_values(tiny: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a recipe for a short run in folder/run; `changes` are dotted keys with _ for dots."""
    picture = folder / "photo.png"
    if not picture.exists():
        draw_picture(picture)
    values: dict[str, Any] = {
        "family": _family_of(tiny),
        "base": str(tiny),
        "concept": {"images": str(picture), "class": "dog"},
        "adapter": {"rank": 4, "min_rank": 2},
        "train": {
            "steps": 6,
            "resolution": 64,
            "precision": "fp32",
            "device": "cpu",
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "checkpoint": {"every": 2, "keep": 2},
        },
        "sampling": {"steps": 3},
        "output": {"dir": str(folder / "run"), "dtype": "float32", "trackers": []},
    }
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        section = values
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return values


def _family_of(tiny: Path) -> str:
    """Return the family that a tiny model's folder is named after, as tiny-flux is."""
    names = [part for part in tiny.name.split("-") if part in FAMILIES]
    return names[0] if names else "flux" if "flux" in tiny.name else "sdxl"


def run(tiny: Path, folder: Path, resume: bool = False, **changes: Any) -> Outcome:
    """Train in this process."""
    folder.mkdir(exist_ok=True)
    return train(Recipe.model_validate(recipe_values(tiny, folder, **changes)), resume=resume)


def write_recipe(tiny: Path, folder: Path, **changes: Any) -> Path:
    """Write the recipe as a file; JSON is YAML."""
    folder.mkdir(exist_ok=True)
    path = folder / "recipe-in.yaml"
    path.write_text(json.dumps(recipe_values(tiny, folder, **changes)))
    return path


def tlora(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, in a process of its own."""
    words = [str(argument) for argument in arguments]
    cwd, timeout = options.pop("cwd", ROOT), options.pop("timeout", 300)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    if not options and fork_server().takes(environment):
        return fork_server().run(words, str(cwd), environment, timeout)
    return subprocess.run(
        [sys.executable, "-m", "tlora_cli", *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env=environment,
        **options,
    )


def start_tlora(*arguments: object) -> Call:
    """Start the command line in a process of its own, and return while it works."""
    words = [str(argument) for argument in arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return fork_server().start(words, str(ROOT), environment)


def run_python(program: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, which has imported what a training imports."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return fork_server().start([], str(ROOT), environment, program).ended(timeout)


@functools.cache
def fork_server(path: str = str(ROOT)) -> ForkServer:
    """Return the process that the command line is forked from; the same for the same PYTHONPATH."""
    return ForkServer(path)


@functools.cache
def pretend_server() -> ForkServer:
    """Return one whose accelerator is the device of `pretend_device.py`."""
    return ForkServer(pretend=True)


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """Yield a folder on a real file system of its own."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True) if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def same_tensors(a: Path, b: Path) -> bool:
    """Whether two adapter files hold bit-identical tensors."""
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)


def same_adapter(a: Path, b: Path) -> bool:
    """Whether two files, of checkpoints or whole, say bit-identical adapters."""
    first, second = (read_adapter(file, ()) for file in (a, b))
    own, other = {**first.parts, **first.words}, {**second.parts, **second.words}
    if first.layers.keys() != second.layers.keys() or own.keys() != other.keys():
        return False
    same = [equal(x, second.layers[n][i]) for n, p in first.layers.items() for i, x in enumerate(p)]
    same += [equal(x, other[n][k]) for n, parts in own.items() for k, x in parts.items()]
    return len(same) > 0 and all(same)


def trained_in(checkpoint: Path) -> dict[str, Tensor]:
    """Return what a checkpoint's file holds, by `<layer>.<tensor>`."""
    return {named(key): tensor for key, tensor in load_file(checkpoint / ADAPTER_FILE).items()}


def named(key: str) -> str:
    """Return `<layer>.<tensor>` of a key in a checkpoint's file."""
    layer = key.removeprefix("unet.").removeprefix("transformer.").removeprefix("word.")
    layer = layer.replace(".tlora.", ".")
    return layer.replace(".lora_A.weight", ".A").replace(".lora_B.weight", ".B")


def moved(adapter: Path) -> bool:
    """Whether training changed anything: the update is not zero."""
    tensors: dict[str, Tensor] = load_file(adapter)
    return any(
        bool((tensors[k.replace("lora_A", "lora_B")] @ tensors[k]).abs().max() > 0)
        for k in tensors
        if "lora_A" in k
    )


def record(step: int) -> StepRecord:
    """Return what a tracker is told of a step."""
    return StepRecord(step, 0.5, 500.0, 4.0, 1e-4, None, step * 0.1, 1.0)
