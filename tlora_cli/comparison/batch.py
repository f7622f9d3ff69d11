"""`tlora batch`: an adapter for each of many photos, and one table of what became of them.

batch.json              the settings that all share; a folder of others is refused
<name>/photo.json       the photo, its class, and the recipe that was planned for it
<name>/run/             the run folder, with the adapter
<name>/log.txt          what the training said
results.csv             a row a photo
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tlora_cli.comparison.engine import Ended, Engine, Report
from tlora_cli.comparison.folders import check_folder
from tlora_cli.comparison.photo_list import Photo
from tlora_cli.comparison.progress import ProgressLine
from tlora_cli.comparison.tasks import last_step, locked_patiently, read_object
from tlora_cli.evaluation.result_files import csv_text
from tlora_cli.foundation.environment import check_alone
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import remove_leftovers, write_text
from tlora_cli.recipe.models import Recipe
from tlora_cli.training.run_folder import RunFolder, differences, short

MARK = "batch.json"
TABLE = "results.csv"
Planner = Callable[[Photo, Path], Recipe]
"""(a photo, its run folder) -> its recipe; raises a UserError if there can be none."""


@dataclass(frozen=True)
class PhotoJob:
    """A photo's training. An `engine.Job`.

    Attributes:
        name: of the photo.
        folder: its own.
        recipe: as plain data.
        threads: CPU threads.
    """

    name: str
    folder: Path
    recipe: dict[str, Any]
    threads: int

    @property
    def run(self) -> RunFolder:
        """The run folder."""
        return RunFolder(self.folder / "run")

    @property
    def log(self) -> Path:
        """See `engine.Job`."""
        return self.folder / "log.txt"

    def work(self, notify: Callable[[str], None]) -> None:
        """See `engine.Job`."""
        from tlora_cli.comparison.run_cell import train_in_lines  # imports torch

        with locked_patiently(self.folder):
            train_in_lines(self.recipe, notify)

    def is_finished(self) -> bool:
        """See `engine.Job`."""
        return self.run.finished(_recipe(self.recipe))


@dataclass(frozen=True)
class Batch:
    """Many photos to train on.

    Attributes:
        photos: all of them.
        folder: of all runs, and of the table.
        settings: what the recipes depend on beside the photos, to tell another batch by.
        plan: makes a recipe.
        threads: CPU threads of each.
    """

    photos: Sequence[Photo]
    folder: Path
    settings: Mapping[str, Any]
    plan: Planner
    threads: int


@dataclass(frozen=True)
class Batched:
    """The end of a batch.

    Attributes:
        table: the file.
        finished: photos that have an adapter.
        failed: name -> how it ended.
        logs: name -> its log, of those that have begun.
    """

    table: Path
    finished: int
    failed: dict[str, Ended]
    logs: dict[str, Path]


def run_batch(
    batch: Batch, engine: Callable[[bool], Engine], console: Console, report: Report | None = None
) -> Batched:
    """Train on the photos that have no adapter yet; what is wrong with one stops no other.

    Args:
        batch: what to train.
        engine: (whether all run on a CPU) -> what runs jobs; called only if there are any.
        console: where progress is shown.
        report: told how they are coming along, too.

    Raises:
        UserError: if the folder holds something else, or a batch of other settings.
        KeyboardInterrupt: if it was stopped; the table says what there is.
    """
    check_alone()
    folder = batch.folder
    check_folder(folder, MARK, "--output")
    with locked_patiently(folder):
        remove_leftovers(folder)
        _claim(folder, batch.settings)
        jobs, failed = _planned(batch, console)
        waiting = [job for job in jobs.values() if not job.is_finished()]
        done = len(jobs) - len(waiting)
        _say(console, f"{_photos(len(batch.photos))}, {done} finished, {len(waiting)} to train")
        for name, how in failed.items():
            _say(console, f"{name}: can't be trained: {how.error.splitlines()[0]}")
            if report:
                report.ended(name, how)
        try:
            if waiting:
                on_cpu = all(job.recipe["train"]["device"] == "cpu" for job in waiting)
                total = len(batch.photos)
                with ProgressLine(console, total, done, "photos", report) as progress:
                    engine(on_cpu).run(waiting, progress)
                    failed |= progress.failed
        finally:
            rows = [_row(photo, jobs.get(photo.name), failed) for photo in batch.photos]
            write_text(folder / TABLE, csv_text(rows))
    finished = sum(row["state"] == "done" for row in rows)
    logs = {name: job.log for name, job in jobs.items() if job.log.exists()}
    return Batched(folder / TABLE, finished, failed, logs)


def _claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder this batch's own.

    Raises:
        UserError: if it was begun with other settings.
    """
    now = json.loads(json.dumps(settings))
    before = read_object(folder / MARK)
    if before is not None and (found := differences(before, now)):
        told = "; ".join(f"{key}: was {short(old)}, is {short(new)}" for key, old, new in found)
        raise UserError(
            f"the batch in this folder was begun with other settings: {told}",
            where=str(folder),
            do="restore them to go on, or choose another --output",
        )
    write_text(folder / MARK, json.dumps(now, indent=1) + "\n")


def _planned(batch: Batch, console: Console) -> tuple[dict[str, PhotoJob], dict[str, Ended]]:
    """Return the jobs of photos that can be trained, and why the others can't."""
    jobs, failed = {}, {}
    for number, photo in enumerate(batch.photos, 1):
        if number % 25 == 0:
            _say(console, f"looked at {number} of {_photos(len(batch.photos))}")
        folder = batch.folder / photo.name
        try:
            recipe = _planned_before(photo, folder) or _plan(photo, folder, batch.plan)
        except UserError as error:
            failed[photo.name] = Ended(str(error), error.kind)
        else:
            jobs[photo.name] = PhotoJob(photo.name, folder, recipe, batch.threads)
    return jobs, failed


def _plan(photo: Photo, folder: Path, plan: Planner) -> dict[str, Any]:
    recipe = plan(photo, folder / "run").model_dump(mode="json", by_alias=True)
    write_text(folder / "photo.json", json.dumps({**asdict(photo), "recipe": recipe}) + "\n")
    return recipe


def _planned_before(photo: Photo, folder: Path) -> dict[str, Any] | None:
    """Return the recipe that a photo had when the batch was begun: what memory is free changes.

    Raises:
        UserError: if the folder is that of another photo.
    """
    before = read_object(folder / "photo.json")
    if before is None:
        return None
    recipe = before.pop("recipe", None)
    if found := differences(before, asdict(photo)):
        told = "; ".join(f"{key}: was {short(old)}, is {short(new)}" for key, old, new in found)
        raise UserError(
            f"the folder {photo.name} was made for another photo: {told}",
            where=str(folder),
            do="name this photo otherwise in the list, or remove the folder",
        )
    try:
        _recipe(recipe)
    except ValueError:  # damaged, or of another version: it is planned anew
        return None
    assert isinstance(recipe, dict)
    return recipe


def _recipe(data: Any) -> Recipe:
    return Recipe.model_validate(data, by_alias=True, by_name=False)


def _row(photo: Photo, job: PhotoJob | None, failed: Mapping[str, Ended]) -> dict[str, Any]:
    """Return a photo's row of the table."""
    how = failed.get(photo.name, Ended())
    done = job is not None and not how.error and job.is_finished()
    about = (read_object(job.run.about) if job else None) or {}
    last = last_step(job.run.metrics) if job else {}
    return {
        "name": photo.name,
        "photo": photo.file,
        "class": photo.class_name,
        "state": "done" if done else "failed" if how.error else "waiting",
        "adapter": str(job.run.adapter) if job and done else None,
        "steps": last.get("step"),
        "parameters": about.get("parameters"),
        "training seconds": last.get("seconds"),
        "peak memory GB": last.get("memory_gb"),
        "device": about.get("device"),
        "error": " ".join(how.error.split()) or None,
    }


def _photos(count: int) -> str:
    return "1 photo" if count == 1 else f"{count} photos"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
