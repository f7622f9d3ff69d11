"""Run folders with made-up numbers, for the tests of reports."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from html_pages import Tables
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from training_runs import recipe_values

from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.reading import dump_recipe


def make_run(folder: Path, records: list[dict[str, Any]], **changes: Any) -> Path:
    """Write a run folder as an earlier version of the program left it."""
    folder.mkdir(exist_ok=True)
    values = recipe_values(Path("tiny-sdxl"), folder, train__steps=60, **changes)
    path = folder / "run"
    path.mkdir()
    (path / "recipe.yaml").write_text(dump_recipe(Recipe.model_validate(values)))
    (path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


def records(count: int, seed: int = 0) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [
        {
            "step": step,
            "loss": chance.uniform(0.01, 1.0),
            "timestep": float(chance.randrange(1000)),
            "lr": 1e-4,
            "seconds": step * 0.25,
            "memory_gb": 1.5 + step / 100,
        }
        for step in range(1, count + 1)
    ]


def draw_preview(run_folder: Path, step: int, prompt: str, picture: Path, seed: int = 0) -> Path:
    folder = run_folder / "previews" / f"step-{step:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    metadata = PngInfo()
    metadata.add_itxt("tlora", json.dumps({"prompt": prompt, "seed": seed}))
    file = folder / f"{len(list(folder.iterdir())):04d}_picture_seed{seed}.png"
    with Image.open(picture) as opened:
        opened.save(file, pnginfo=metadata)
    return file


Cli = Callable[..., tuple[int, str, str]]


def report(cli: Cli, folder: Path) -> tuple[str, Tables]:
    status, out, err = cli("report", folder)
    assert status == 0, err
    assert out.strip() == str(folder / "report.html")
    page = (folder / "report.html").read_text()
    return page, Tables(page)
