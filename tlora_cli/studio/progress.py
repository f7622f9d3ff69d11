"""The progress of a run: its steps, previews, loss by timestep band, and what can be said of it."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tlora_cli.foundation.durations import clock
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.foundation.pictures import picture_settings
from tlora_cli.studio import processes
from tlora_cli.studio.values import MASK
from tlora_cli.training.kept_images import kept_pictures
from tlora_cli.training.report.curves import loss_section
from tlora_cli.training.report.reading import Run, read_run
from tlora_cli.training.report.verdict import verdict
from tlora_cli.training.run_folder import RunFolder, checkpoints, step_of

MOST_DRAWN = 48
"""Drawings that are shown; all of them are in the folder."""
FRESH = 2.0
"""Seconds for which what was read of a run that goes on is shown again: reading takes time."""


@dataclass(frozen=True)
class _Read:
    """The contents of a run's folder, when they were read, and of which state of the folder."""

    at: float
    state: tuple[Any, ...]
    shown: dict[str, Any]


_READ: dict[Path, _Read] = {}


def progress(name: str, folder: Path) -> dict[str, Any]:
    """Return what the page shows of a run, as plain data.

    Args:
        name: of the run, or its draft.
        folder: of the run.
    """
    alive = processes.is_alive(name, folder)
    process = processes.process_of(name)
    lines = processes.output_of(name)
    shown = {
        "folder": str(folder),
        "alive": alive,
        "stopping": bool(alive and process and process.asked),
        "here": process is not None and (process.alive or not alive),
        "lines": lines[-40:],
        "failure": "" if alive else processes.failure_of(name),
        "resume": shlex.join([PRODUCT, "train", "--resume", "--output", str(folder)]),
        **_nothing(),
    }
    if not RunFolder(folder).recipe.is_file():
        shown["state"] = "starting" if alive else "stopped"
        return shown
    try:
        shown |= _read(folder, alive)
    except UserError as error:
        shown |= {"state": "damaged", "failure": str(error)}
        return shown
    if alive:
        shown["state"] = "running"
    elif shown["state"] == "running":
        shown["state"] = "stopped"
    return shown


def _nothing() -> dict[str, Any]:
    return {
        "state": "stopped",
        "step": 0,
        "steps": 0,
        "facts": {},
        "plot": "",
        "previews": [],
        "saved": 0,
        "adapter": "",
        "verdict": None,
        "report": False,
        "concept": "",
        "method": "",
        "learned": False,
    }


def _read(folder: Path, alive: bool) -> dict[str, Any]:
    """Return what the folder says; while it goes on, not oftener than is worth it."""
    run, now = RunFolder(folder), time.monotonic()
    parts = (run.metrics, run.previews, run.adapter, run.checkpoints, run.recipe, run.report)
    state = (alive, *map(_changed, parts))
    before = _READ.get(folder)
    if before and (before.state == state or (alive and now - before.at < FRESH)):
        return dict(before.shown)
    shown = _shown(read_run(folder))
    took = time.monotonic() - now
    _READ[folder] = _Read(now + 10 * took, state, shown)
    return dict(shown)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _shown(run: Run) -> dict[str, Any]:
    steps, folder = run.metrics.steps, RunFolder(run.path)
    saved = checkpoints(folder.checkpoints)
    last = steps[-1] if steps else None
    total, plot = run.recipe.train.steps, str(loss_section(run))
    return {
        "state": run.state,
        "step": last.step if last else 0,
        "steps": total,
        "facts": _facts(run),
        "plot": plot if "<svg" in plot else "",
        "previews": list(_previews(folder.previews)),
        "saved": step_of(saved[-1]) if saved else 0,
        "adapter": "" if run.adapter is None else str(run.adapter),
        "verdict": asdict(verdict(run)),
        "report": folder.report.is_file(),
        "concept": run.recipe.concept.words,
        "method": _method(run),
        "learned": bool(kept_pictures(folder.training_pictures)),
    }


def _method(run: Run) -> str:
    """Return what learns, in a few words."""
    adapter, recipe = run.recipe.adapter, run.recipe
    return f"{adapter.method}, rank {adapter.rank}, on {recipe.base.model}; recipe: {recipe.recipe}"


def _facts(run: Run) -> dict[str, str]:
    steps, total = run.metrics.steps, run.recipe.train.steps
    last = steps[-1] if steps else None
    facts: dict[str, str] = {}
    if last is None or last.seconds is None or last.seconds <= 0:
        return facts
    speed = last.step / last.seconds
    facts["speed"] = f"{speed:.1f} steps/s" if speed >= 1 else f"{1 / speed:.1f} s a step"
    if run.state == "running" and last.step < total:
        facts["time left in steps"] = clock((total - last.step) / speed)
    facts["time in steps"] = clock(last.seconds)
    memory = [one.memory_gb for one in steps if one.memory_gb is not None]
    if memory:
        facts["peak memory"] = f"{max(memory):.1f} GB"
    return facts


def _previews(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield each prompt and seed with its pictures over the steps."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    found = [one for one in folder.glob("step-*") if re.fullmatch(r"step-\d+", one.name)]
    for step in sorted(found, key=step_of):
        for file in sorted(step.glob("*.png")):
            said = settings_of(file)
            row = rows.setdefault(
                (str(said.get("prompt", file.stem)), str(said.get("seed", ""))), []
            )
            row.append({"step": step_of(step), "file": f"{step.name}/{file.name}"})
    for (prompt, seed), pictures in rows.items():
        yield {"prompt": prompt, "seed": seed, "pictures": pictures}


def settings_of(file: Path) -> dict[str, Any]:
    """Return what a picture says of itself; a file that was read before is not read again."""
    return _settings_of(file, _changed(file))


@lru_cache(maxsize=2048)
def _settings_of(file: Path, changed: int) -> dict[str, Any]:
    try:
        return picture_settings(file)
    except UserError:
        return {}


def drawings(folder: Path) -> list[dict[str, Any]]:
    """Return what was drawn into a folder, newest first; what differs by the mask is together."""
    sets: dict[tuple[Any, ...], dict[str, Any]] = {}
    for file in sorted(folder.glob("*.png")):
        said = settings_of(file)
        if "prompt" not in said or MASK not in said:
            continue
        keys = ("prompt", "seed", "scale", "train_steps")
        one = sets.setdefault(
            tuple(said.get(key) for key in keys), {key: said.get(key) for key in keys}
        )
        one["masked" if said[MASK] else "unmasked"] = file.name
        one["last"] = file.name
    return sorted(sets.values(), key=lambda one: str(one["last"]), reverse=True)[:MOST_DRAWN]
