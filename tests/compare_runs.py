"""Small comparisons for the tests: grids on the tiny models, and sittings that can be killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from training_runs import draw_picture

from tlora_cli.comparison.cells import Plan
from tlora_cli.comparison.grid_io import load_grid
from tlora_cli.comparison.planning import make_plan
from tlora_cli.comparison.summary import Summary, summarize
from tlora_cli.comparison.tasks import Result, Task, task_of, write_result
from tlora_cli.evaluation.result_files import csv_text

TABLES = ("cells.csv", "summary.csv", "summary.json", "summary.md")


def grid_values(tiny: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a grid of four short cells in folder/out; `changes` replace whole sections."""
    picture, prompts = folder / "photo.png", folder / "prompts.json"
    if not picture.exists():
        draw_picture(picture, size=64)
        prompts.write_text(json.dumps(["a V* in the snow", "a blue V*"]))
    return {
        "recipe": {
            "family": "sdxl",
            "base": str(tiny),
            "train": {
                "steps": 6,
                "resolution": 64,
                "precision": "fp32",
                "device": "cpu",
                "optimizer": {"name": "adamw", "lr": 1e-2},
                "checkpoint": {"every": 2, "keep": 2},
            },
            "sampling": {"steps": 2},
            "output": {"trackers": []},
        },
        "output": str(folder / "out"),
        "grid": {
            "method": ["lora", "tlora"],
            "rank": [2],
            "concept": [{"name": "toy", "images": str(picture), "class": "dog"}],
            "seed": [0, 1],
        },
        "baseline": {"method": "lora"},
        "evaluate": {
            "metrics": ["clip=toy-clip"],
            "prompts": str(prompts),
            "count": 1,
            "base_count": 2,
            "free_count": 0,
            "batch_size": 1,
            "mask": "none",
        },
        **changes,
    }


def write_grid(path: Path, values: dict[str, Any]) -> Path:
    """Write a grid as a file; JSON is YAML."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(values))
    return path


def plan_of(path: Path, values: dict[str, Any]) -> Plan:
    """Return the plan of a grid."""
    return make_plan(load_grid(write_grid(path, values)))


def finish_cell(task: Task, score: float) -> None:
    """Leave a cell's result, with an adapter and a score, as if it had been run."""
    task.run.path.mkdir(parents=True)
    task.run.adapter.write_bytes(task.name.encode())
    task.evaluation.mkdir()
    task.scores.write_text(json.dumps({"results": {"clip IS": score}}))
    write_result(task)


def tables(folder: Path) -> dict[str, str]:
    """Return the tables that don't depend on the time a run took."""
    return {name: (folder / name).read_text() for name in TABLES}


def _sit(arguments: tuple[str, ...], log: str) -> None:
    from tlora_cli.cli.app import main
    from tlora_cli.comparison import local

    # Cells are forked from here, where the libraries are loaded; users get a server for that.
    local.START_METHOD = "fork"
    output = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = ["tlora", *arguments]
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def sitting(*arguments: object, log: Path) -> Any:
    """Start `tlora compare` in a process that is forked from this one, and return the process."""
    return forked_main("compare", *arguments, log=log)


def forked_main(*arguments: object, log: Path) -> Any:
    """Start `tlora` in a process that is forked from this one, and return the process."""
    texts = tuple(map(str, arguments))
    process = multiprocessing.get_context("fork").Process(target=_sit, args=(texts, str(log)))
    process.start()
    return process


def made_summary(folder: Path) -> Summary:
    """Three concepts by two seeds; lora gets 0.5 + concept, tlora 0.1 more; one cell is missing."""
    values = grid_values(folder / "tiny-sdxl", folder)
    values["grid"] = {"method": ["lora", "tlora", "oft"], "rank": [2, 4], "seed": [0, 1]}
    values["grid"]["concept"] = ["pip", "momo", "finn", "otto"]
    values["baseline"] = {"method": "lora", "rank": 2}
    plan = plan_of(folder / "grid.yaml", values)
    concepts = ["pip", "momo", "finn", "otto"]
    results = {}
    for cell in plan.cells:
        place = concepts.index(cell.concept)
        gain = {"lora": 0.0, "tlora": 0.1, "oft": -0.2}[cell.arm.method]
        score = 0.1 * place + 0.01 * cell.seed + gain
        scores = {"TS*": 0.5 + score, "ID*": 0.4 - score, "leak": 0.2 - gain}
        results[cell.name] = Result(scores, 1000, 6, 3.0, 0.5, "cpu")
    gone = results.pop("tlora-r4-linear-otto-s1")
    results["oft-pip-s0"] = Result({**gone.scores, "TS*": float("nan")}, 1000, 6, 3.0, 0.5, "cpu")
    return summarize(plan, results, {"tlora-r4-linear-otto-s1": "the loss of step 3 is nan"})


def give_pictures(summary: Summary) -> None:
    """Leave what an evaluation leaves, as far as the page needs it."""
    shade = 0
    for cell, _ in summary.finished:
        folder = task_of(cell, summary.plan).evaluation
        rows = []
        for group, count in (("base", 3), ("suite", 12), ("free", 2)):
            for number in range(count):
                file = folder / "pictures" / group / f"{number:03d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                shade = (shade + 7) % 250
                Image.new("RGB", (64, 64), (shade, 90, 90)).save(file)
                name = file.relative_to(folder).as_posix()
                prompt = "a photo of a V*" if group == "base" else f"V* number {number}"
                rows.append({"group": group, "prompt": prompt, "file": name})
        (folder / "pictures.csv").write_text(csv_text(rows))
