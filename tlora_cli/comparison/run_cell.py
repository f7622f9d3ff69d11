"""One cell, from wherever it was left: train, evaluate, write the result."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, TextIO, cast

import torch
from rich.console import Console

from tlora_cli.comparison.tasks import Task, claim, locked_patiently, write_result
from tlora_cli.evaluation.run import Evaluation, evaluate_adapter
from tlora_cli.foundation.devices import release_memory
from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.models import Recipe
from tlora_cli.training.loop import train

WIDTH = 200
"""Width of lines; they are not wrapped, they go into a log and a progress line."""


class Stopped(Exception):
    """The cell was asked to stop, and has saved what it had."""


def attempt(task: Task, notify: Callable[[str], None], log: TextIO) -> str | None:
    """Do a cell, as far as it isn't done; nothing it meets is raised.

    Args:
        task: the cell.
        notify: told each line of progress.
        log: where errors are written in full.

    Returns:
        What went wrong, in words; empty if nothing; None if the cell was asked to stop.
    """
    try:
        work(task, notify)
    except Stopped:
        return None
    except UserError as error:
        print(f"error: {error}", file=log)
        return str(error)
    except Exception as error:  # whatever it is, it is this cell's alone
        traceback.print_exc(file=log)
        first_line = str(error).partition("\n")[0]
        return f"internal error: {type(error).__name__}: {first_line}; see {task.log}"
    return ""


def work(task: Task, notify: Callable[[str], None]) -> None:
    """Do a cell, as far as it isn't done.

    Raises:
        UserError: for what the user can mend.
        Stopped: if a signal asked the training to stop.
    """
    torch.set_num_threads(task.threads)
    with locked_patiently(task.folder):
        claim(task)
        adapter = _train(task, notify)
        gc.collect()  # what was trained goes before the base is loaded again
        release_memory()
        _evaluate(task, adapter, notify)
        write_result(task)


def _train(task: Task, notify: Callable[[str], None]) -> Path:
    recipe = Recipe.model_validate(task.recipe, by_alias=True, by_name=False)
    lines = cast(IO[str], _Lines(notify))
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


class _Lines:
    """A text file that gives each line to a function."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._rest = ""

    def write(self, text: str) -> int:
        """Take text; what follows the last line end waits."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._notify(line.strip())
        return len(text)

    def flush(self) -> None:
        """Do nothing: lines are given at once."""

    def isatty(self) -> bool:
        """Return that this is no terminal."""
        return False
