"""One job in its own process; and a cell, from wherever it was left: train, evaluate, result."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TextIO, cast

import torch
from rich.console import Console

from tlora_cli.comparison.engine import Ended, Job, Stopped
from tlora_cli.comparison.tasks import Task, claim, locked_patiently, write_result
from tlora_cli.evaluation.run import Evaluation, evaluate_adapter
from tlora_cli.foundation.devices import release_memory
from tlora_cli.foundation.errors import Status, UserError, no_room
from tlora_cli.foundation.line_stream import LineStream
from tlora_cli.foundation.stopping import stop_behind
from tlora_cli.recipe.models import Recipe
from tlora_cli.training.loop import train

WIDTH = 200
"""Width of lines; they are not wrapped, they go into a log and a progress line."""


def attempt(job: Job, notify: Callable[[str], None], log: TextIO) -> Ended | None:
    """Do a job, as far as it isn't done; nothing it meets is raised but a signal's stop.

    Args:
        job: a cell, say.
        notify: told each line of progress.
        log: where errors are written in full.

    Returns:
        How it ended; None if the job was asked to stop.
    """
    try:
        torch.set_num_threads(job.threads)
        job.work(notify)
    except Stopped:
        return None
    except Exception as error:  # whatever it is, it is this job's alone
        if (stop := stop_behind(error)) is not None:
            raise stop from error
        return _failed(error, job, log)
    return Ended()


def _failed(error: Exception, job: Job, log: TextIO) -> Ended:
    """Write an error into the log, and return how the job ended by it."""
    told = error if isinstance(error, UserError) else no_room(error)
    if told is not None:
        print(f"error: {told}", file=log)
        return Ended(str(told), told.kind)
    traceback.print_exception(error, file=log)
    first_line = str(error).partition("\n")[0]
    text = f"internal error: {type(error).__name__}: {first_line}; see {job.log}"
    return Ended(text, Status.FAULT)


def work(task: Task, notify: Callable[[str], None]) -> None:
    """Do a cell, as far as it isn't done.

    Raises:
        UserError: for what the user can mend.
        Stopped: if a signal asked the training to stop.
    """
    with locked_patiently(task.folder):
        claim(task)
        adapter = train_in_lines(task.recipe, notify)
        gc.collect()  # what was trained goes before the base is loaded again
        release_memory()
        _evaluate(task, adapter, notify)
        write_result(task)


def train_in_lines(data: dict[str, Any], notify: Callable[[str], None]) -> Path:
    """Train, or go on with it, and return the adapter.

    Args:
        data: the recipe as plain data.
        notify: told each line of progress.

    Raises:
        UserError: for what the user can mend.
        Stopped: if a signal asked to stop.
    """
    recipe = Recipe.model_validate(data, by_alias=True, by_name=False)
    lines = cast(IO[str], LineStream(notify))
    console = Console(file=lines, width=WIDTH, force_terminal=False, color_system=None)
    outcome = train(recipe, resume=True, console=console)
    if outcome.adapter is None:
        raise Stopped
    return outcome.adapter


def _evaluate(task: Task, adapter: Path, notify: Callable[[str], None]) -> None:
    settings = task.evaluate
    job = Evaluation(
        output=task.evaluation,
        prompts=settings["prompts"],
        metrics=settings["metrics"],
        images=settings["images"],
        seed=settings["seed"],
        count=settings["count"],
        base_count=settings["base_count"],
        free_count=settings["free_count"],
        batch_size=settings["batch_size"],
        device=task.recipe["train"]["device"],
        mask=settings["mask"],
    )
    evaluate_adapter(adapter, job, notify, lambda done, total: notify(f"pictures {done}/{total}"))
