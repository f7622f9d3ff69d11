"""Commands to disturb, with the files that they work on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


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


def file_of(desk: Desk, name: str, data: Any) -> Path:
    """Write data as a file beside the folders of commands, and return it."""
    path = desk.folder.parent / name
    path.write_text(json.dumps(data))  # JSON is YAML
    return path


def _grid(desk: Desk, output: Path) -> Path:
    short = recipe(desk, output)
    for key in ("concept", "adapter", "output"):
        del short[key]
    prompts = file_of(desk, "prompts.json", ["a V* in the snow"])
    concept = {"name": "toy", "images": str(photo(desk.folder)), "class": "dog"}
    return file_of(
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


def with_a_folder_of_nodes(output: Path) -> Path:
    """Return a folder like ComfyUI's, made if it can be."""
    with contextlib.suppress(OSError):
        (output / "custom_nodes").mkdir(parents=True)
    return output


Words = Callable[[Desk, Path], list[Any]]
COMMANDS: dict[str, Words] = {
    "train": lambda desk, out: ["train", file_of(desk, "recipe.yaml", recipe(desk, out))],
    "init": lambda desk, out: [
        *("init", "toy:momo/1", "--class", "cat", "--base", "toy-sdxl", "--yes"),
        *("--output", out / "momo.yaml"),
    ],
    "validate": lambda desk, out: ["validate", file_of(desk, "recipe.yaml", recipe(desk, out))],
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
        *("batch", _list(desk), "--config", file_of(desk, "recipe.yaml", recipe(desk, out))),
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
    "comfyui": lambda desk, out: ["comfyui", with_a_folder_of_nodes(out / "ui")],
}
"""Name -> its words, of the files it reads and the folder it writes into."""
