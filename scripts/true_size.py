#!/usr/bin/env python3
"""Measure the memory and the files of runs of SDXL's true size on a CPU, beside their plans.

    python scripts/true_size.py OUT                          all cases
    python scripts/true_size.py OUT --cases default,fp32     some of them
    python scripts/true_size.py OUT --base-only              writes the base and ends

The base is SDXL's architecture with random weights: one fp16 file of 7 GB and a folder in bf16 with
configurations and tokenizers, written into OUT once. Each case trains rank 64 at 256 pixels in a
process of its own, goes on from its middle checkpoint once more, and draws with that checkpoint.
OUT gets figures.json and figures.md. Needs Linux, 15 GB of disk, and up to 14 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

import torch
from benchmark.process_memory import Watched, watch
from benchmark.random_base import write_random_base
from PIL import Image
from safetensors.torch import load_file
from single_file import write_sdxl

from tlora_cli.foundation.files import write_text
from tlora_cli.recipe.models import Recipe
from tlora_cli.tools.preflight.fitting import room_of
from tlora_cli.tools.preflight.memory import attach_planned, plan_memory, planned_denoiser
from tlora_cli.training.disk_space import disk_space
from tlora_cli.training.run_folder import RunFolder

TLORA = (sys.executable, "-m", "tlora_cli")
SIDE, RANK = 256, 64
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "checkpointing": {"gradient_checkpointing": True},
    "fp32": {"precision": "fp32"},
    "folder": {},
}
"""Name -> settings of `train`; `folder` trains on the base's folder, the others on its file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the figures; return the exit status."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    folder = write_random_base("sdxl", options.out, torch.device("cpu"))
    file = options.out / "random-sdxl.safetensors"
    if not file.exists():
        unfinished = file.with_suffix(".unfinished")
        write_sdxl(folder, unfinished, dtype=torch.float16)
        unfinished.rename(file)
    if options.base_only:
        return 0
    figures = options.out / "figures.json"
    rows = json.loads(figures.read_text()) if figures.exists() else {}
    for name in options.cases:
        rows[name] = measure(name, options.out.resolve(), options.steps)
        write_text(figures, json.dumps(rows, indent=1))
        write_text(options.out / "figures.md", table(rows))
        print(table({name: rows[name]}), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
    )
    parser.add_argument("out", type=Path, help="folder for base, runs and figures")
    parser.add_argument(
        "--cases",
        type=lambda text: text.split(","),
        default=list(CASES),
        help=f"of {', '.join(CASES)}; default: all",
    )
    parser.add_argument("--steps", type=int, default=6, help="of a run; an even number")
    parser.add_argument("--base-only", action="store_true", help="write the base and end")
    return parser


def recipe_of(name: str, out: Path, steps: int) -> Recipe:
    """Return the recipe of a case."""
    photo = out / "photo.png"
    if not photo.exists():
        Image.linear_gradient("L").resize((300, 300)).convert("RGB").save(photo)
    folder = str(out / "random-sdxl")
    file = {"model": f"{folder}.safetensors", "config": folder}
    settings = {"steps": steps, "resolution": SIDE, "device": "cpu", **CASES[name]}
    return Recipe.model_validate(
        {
            "family": "sdxl",
            "base": {"model": folder} if name == "folder" else file,
            "concept": {"images": str(photo), "class": "dog"},
            "adapter": {"rank": RANK},
            "train": {**settings, "checkpoint": {"every": steps // 2, "keep": 2}},
            "output": {"dir": str(out / f"run-{name}"), "trackers": []},
        }
    )


def measure(name: str, out: Path, steps: int) -> dict[str, Any]:
    """Run a case; return what was planned and what was seen.

    Raises:
        RuntimeError: if a command fails, or the resumed run ends with other weights.
    """
    recipe = recipe_of(name, out, steps)
    run = RunFolder(Path(recipe.output.dir))
    shutil.rmtree(run.path, ignore_errors=True)
    config = out / f"{name}.yaml"  # JSON is YAML
    write_text(config, recipe.model_dump_json(by_alias=True))
    trained = _watched("train", "--config", str(config))
    first = load_file(run.adapter)
    middle = run.checkpoints / f"checkpoint-{steps // 2:06d}"
    sizes = {
        "checkpoint": sum(file.stat().st_size for file in middle.iterdir()),
        "start": (run.checkpoints / "start.safetensors").stat().st_size,
        "result": run.adapter.stat().st_size,
    }
    shutil.rmtree(run.checkpoints / f"checkpoint-{steps:06d}")
    run.adapter.unlink()
    resumed = _watched("train", "--resume", "--output", str(run.path))
    again = load_file(run.adapter)
    if first.keys() != again.keys() or any(not first[key].equal(again[key]) for key in first):
        raise RuntimeError(f"{name}: the resumed run ended with other weights")
    pictures = out / f"pictures-{name}"
    shutil.rmtree(pictures, ignore_errors=True)
    drawn = _watched(
        *("sample", "--adapter", str(middle / "adapter.safetensors"), "--prompt", "a V*"),
        *("--steps", "2", "--width", str(SIDE), "--height", str(SIDE)),
        *("--device", "cpu", "--output", str(pictures)),
    )
    space = disk_space(attach_planned(recipe, planned_denoiser(recipe)), recipe)
    room = room_of(None)
    assert room is not None
    plan = plan_memory(recipe)
    return {
        "planned": room.seen(plan),
        "to be free": room.need(plan),
        "phases": {phase.name: phase.parts for phase in plan.phases},
        "train": _told(trained),
        "resume": _told(resumed),
        "sample": _told(drawn),
        "planned files": {key: getattr(space, key) for key in sizes},
        "files": sizes,
    }


def _watched(*words: str) -> Watched:
    print("tlora", *words, flush=True)
    found = watch([*TLORA, *words])
    if found.code:
        raise RuntimeError(f"tlora {' '.join(words)} failed:\n" + "\n".join(found.said))
    return found


def _told(found: Watched) -> dict[str, Any]:
    return {
        "peak": found.peak,
        "own": found.own,
        "seconds": round(found.seconds),
        "stages": found.stages,
    }


def table(rows: dict[str, Any]) -> str:
    """Return the figures as Markdown, in GB."""
    lines = [
        "| | planned | measured | of which its own | resumed | sample |"
        " a checkpoint, planned | real | start | real | result | real |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        memory = [row["planned"], *(row[key]["peak"] for key in ("train", "resume", "sample"))]
        memory.insert(2, row["train"]["own"])
        files = [row[kind][key] for key in row["files"] for kind in ("planned files", "files")]
        cells = [name, *(f"{size / 1e9:.2f}" for size in (*memory, *files))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
