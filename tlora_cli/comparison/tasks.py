"""A cell on disk: its folder, whose it is, and its result once it is finished.

cell.json          all that the result depends on; a folder of other settings is refused
run/               the run folder of the training
evaluation/        pictures and scores
result.json        written last: the cell is finished
log.txt            what training and evaluation said
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.comparison.cells import Cell, Plan
from tlora_cli.evaluation.stored_scores import read_scores
from tlora_cli.foundation.bundled import version_of
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import locked, write_text
from tlora_cli.training.run_folder import RunFolder, differences, short

FREE_RECIPE_KEYS = (("output", "dir"), ("output", "trackers"), ("output", "project"),
                    ("train", "checkpoint"), ("train", "preview"))  # fmt: skip
"""Recipe keys that a result doesn't depend on."""
AS_BEFORE: dict[tuple[str, ...], Any] = {
    ("recipe",): "paper",
    ("concept", "captions"): False,
    ("concept", "caption_dropout"): 0.0,
    ("concept", "mask_model"): None,
    ("concept", "prompts"): None,
    ("concept", "prior", "prompts"): None,
    ("concept", "phrases"): None,
    ("concept", "scenes"): None,
    ("adapter", "schedule", "axis"): "timestep",
    ("train", "crop"): "center",
    ("train", "ema"): None,
    ("train", "offload"): False,
    ("train", "preserve"): None,
    ("train", "select"): "last",
    ("train", "word_lr"): None,
    ("train", "word_share"): None,
}
"""Recipe keys that cells of an earlier version don't have -> the value that means the same. It is
left out of what is compared, so that those cells fit. A new key of the recipe is added here."""
SCORING = ("metrics", "mask")
"""Settings of the evaluation that may change: the pictures stay, and are scored again."""
PATIENCE = 20.0
"""Seconds to wait for a folder's lock: processes of a killed comparison end a moment later."""


@dataclass(frozen=True)
class Result:
    """All that is known of a finished cell.

    Attributes:
        scores: metric -> value.
        parameters: how many were trained; None if the run doesn't say.
        steps: of the training.
        seconds: of the training's steps.
        memory_gb: peak memory of the training: of the GPU, or of the process on a CPU.
        device: a GPU's name, or cpu.
    """

    scores: dict[str, float]
    parameters: int | None
    steps: int | None
    seconds: float | None
    memory_gb: float | None
    device: str | None


@dataclass(frozen=True)
class Task:
    """All that a worker needs to know of a cell: plain values, for other processes and machines.

    Attributes:
        name: of the cell.
        folder: its own.
        recipe: as plain data.
        evaluate: settings of the evaluation, with its prompts and pictures.
        threads: CPU threads.
        base_version: of a base that comes with a package: what an earlier one gave isn't mixed in.
    """

    name: str
    folder: Path
    recipe: dict[str, Any]
    evaluate: dict[str, Any]
    threads: int
    base_version: str | None = None

    @property
    def run(self) -> RunFolder:
        """The run folder."""
        return RunFolder(self.folder / "run")

    @property
    def evaluation(self) -> Path:
        """Folder of pictures and scores."""
        return self.folder / "evaluation"

    @property
    def scores(self) -> Path:
        """The scores, as the evaluation leaves them."""
        return self.evaluation / "results.json"

    @property
    def log(self) -> Path:
        """The file of what training and evaluation said."""
        return self.folder / "log.txt"

    @property
    def stamp(self) -> dict[str, Any]:
        """All that pictures and weights depend on."""
        free = set(FREE_RECIPE_KEYS)
        if self.recipe["train"].get("select", "last") != "last":
            free.remove(("train", "checkpoint"))  # says which steps can be chosen
        recipe = _kept(self.recipe, free)
        drawing = {key: value for key, value in self.evaluate.items() if key not in SCORING}
        version = {"base_version": self.base_version} if self.base_version else {}
        return {"recipe": recipe, "evaluate": drawing, "threads": self.threads, **version}

    @property
    def key(self) -> str:
        """Digest of all that the result depends on."""
        scoring = {key: self.evaluate[key] for key in SCORING}
        text = json.dumps([self.stamp, scoring], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _kept(
    recipe: dict[str, Any], free: Collection[tuple[str, ...]], path: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return a recipe, or a section of it, without what doesn't matter or is as before."""
    kept = {}
    for key, value in recipe.items():
        place = (*path, key)
        if place in free or (place in AS_BEFORE and value == AS_BEFORE[place]):
            continue
        kept[key] = _kept(value, free, place) if isinstance(value, dict) else value
    return kept


def task_of(cell: Cell, plan: Plan) -> Task:
    """Return the task of a cell."""
    settings = plan.grid.evaluate
    evaluate = {
        "prompts": None if plan.prompts is None else list(plan.prompts),
        "images": cell.images,
        "metrics": settings.checkpoints,
        "mask": None if settings.mask == "none" else settings.mask,
        **settings.model_dump(include={"seed", "count", "base_count", "free_count", "batch_size"}),
    }
    recipe = cell.recipe.model_dump(mode="json", by_alias=True)
    version = version_of(cell.recipe.base.model)
    return Task(cell.name, plan.cell_folder(cell), recipe, evaluate, plan.grid.threads, version)


def changed(task: Task) -> list[str]:
    """Return in which settings the cell's folder was made otherwise, in words; empty if it fits."""
    before = read_object(task.folder / "cell.json")
    if before is None:
        return []  # none, or damaged: the run's and the evaluation's own folders know theirs
    if isinstance(before.get("recipe"), dict):
        before["recipe"] = _kept(before["recipe"], ())
    return [
        f"{key}: was {short(old)}, is {short(new)}"
        for key, old, new in differences(before, _plain(task.stamp))
    ]


def claim(task: Task) -> None:
    """Make the folder the cell's own.

    Raises:
        UserError: if it was made with other settings.
    """
    if found := changed(task):
        raise UserError(
            "the cell was made with other settings: " + "; ".join(found),
            where=str(task.folder),
            do="restore them, or choose another output",
        )
    write_text(task.folder / "cell.json", json.dumps(task.stamp, indent=1) + "\n")


def write_result(task: Task) -> None:
    """Declare the cell finished."""
    result = {
        "key": task.key,
        "scores": digest(task.scores),
        "adapter": digest(task.run.adapter),
    }
    write_text(task.folder / "result.json", json.dumps(result, indent=1) + "\n")


def result_key(folder: Path) -> str | None:
    """Return the key that a cell's folder says it was finished with; None if it is not finished."""
    key = (read_object(folder / "result.json") or {}).get("key")
    return key if isinstance(key, str) else None


def read_result(task: Task) -> Result | None:
    """Return the result of a finished cell; None if it is not finished.

    A result of other settings, scores that are not whole or not those that were written, and an
    adapter that was replaced since do not count: the cell is then done again.
    """
    found = read_object(task.folder / "result.json")
    if found is None or found.get("key") != task.key:
        return None
    adapter = task.run.adapter
    if adapter.exists() and digest(adapter) != found.get("adapter"):
        return None
    if not task.scores.is_file() or digest(task.scores) != found.get("scores"):
        return None
    scores = read_scores(task.evaluation)
    about = read_object(task.run.about) or {}
    last = last_step(task.run.metrics)
    return Result(
        scores,
        about.get("parameters"),
        last.get("step"),
        last.get("seconds"),
        last.get("memory_gb"),
        about.get("device"),
    )


def digest(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def locked_patiently(folder: Path) -> Iterator[None]:
    """Hold a folder; wait a while for processes of a killed comparison to end.

    Raises:
        UserError: if another process keeps it.
    """
    until = time.monotonic() + PATIENCE
    while True:
        lock = locked(folder)
        try:
            lock.__enter__()
        except UserError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
            continue
        try:
            yield
        finally:
            lock.__exit__(None, None, None)
        return


def _plain(value: Any) -> Any:
    """Return what JSON gives back."""
    return json.loads(json.dumps(value))


def read_object(file: Path) -> dict[str, Any] | None:
    """Return a JSON object, or None if there is none that can be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def last_step(metrics: Path) -> dict[str, Any]:
    """Return the last whole line of metrics.jsonl."""
    try:
        lines = metrics.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        return found if isinstance(found, dict) else {}
    return {}
