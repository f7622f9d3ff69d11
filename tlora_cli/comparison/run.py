"""`tlora compare`: find what is finished, run the rest, write the tables and the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tlora_cli.comparison.cell_job import CellJob
from tlora_cli.comparison.cells import MARK, Plan
from tlora_cli.comparison.engine import Ended, Engine, Report
from tlora_cli.comparison.folders import check_folder
from tlora_cli.comparison.page import page
from tlora_cli.comparison.progress import ProgressLine
from tlora_cli.comparison.sharing import take_over
from tlora_cli.comparison.summary import Summary, summarize
from tlora_cli.comparison.tables import write_tables
from tlora_cli.comparison.tasks import Result, Task, changed, locked_patiently, read_result, task_of
from tlora_cli.foundation.environment import check_alone
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import remove_leftovers, write_text

PAGE = "index.html"
MAX_TOLD = 10
"""Cells of other settings that are told one by one."""


@dataclass(frozen=True)
class Compared:
    """The end of a comparison.

    Attributes:
        summary: of all finished cells.
        files: tables and page.
        failed: name of a cell -> how it has ended.
    """

    summary: Summary
    files: list[Path]
    failed: dict[str, Ended]


def compare(
    plan: Plan,
    grid_text: str,
    title: str,
    engine: Callable[[], Engine],
    console: Console,
    report: Report | None = None,
) -> Compared:
    """Run the cells that are not finished, and write tables and page of all that are.

    Args:
        plan: all cells.
        grid_text: the grid file, kept beside the results.
        title: of the page.
        engine: makes what runs cells; called only if there are any to run.
        console: where progress is shown.
        report: told how the cells are coming along, too.

    Raises:
        UserError: if the folder holds something else, or cells of other settings.
        KeyboardInterrupt: if it was stopped; the tables are then as they were.
    """
    check_alone()
    folder = plan.folder
    check_folder(folder, MARK, "output")
    tasks = [task_of(cell, plan) for cell in plan.cells]
    with locked_patiently(folder):
        _check_cells(tasks)
        remove_leftovers(folder)
        write_text(folder / MARK, grid_text)
        results = _finished(tasks)
        taken = take_over([task for task in tasks if task.name not in results], folder)
        results |= taken
        waiting = [task for task in tasks if task.name not in results]
        _say(console, _counted(len(tasks), len(results) - len(taken), len(taken), len(waiting)))
        failed: dict[str, Ended] = {}
        if waiting:
            with ProgressLine(console, len(tasks), len(results), also=report) as progress:
                engine().run([CellJob(task) for task in waiting], progress)
            failed = progress.failed
            results = _finished(tasks)
        summary = summarize(plan, results, {name: how.error for name, how in failed.items()})
        files = write_tables(summary, folder)
        write_text(folder / PAGE, page(summary, title))
    return Compared(summary, [*files, folder / PAGE], failed)


def _counted(cells: int, finished: int, taken: int, waiting: int) -> str:
    beside = f"{taken} taken over from comparisons beside it, " if taken else ""
    return f"{cells} cells, {finished} finished, {beside}{waiting} to run"


def _finished(tasks: list[Task]) -> dict[str, Result]:
    found = {task.name: read_result(task) for task in tasks}
    return {name: result for name, result in found.items() if result is not None}


def _check_cells(tasks: list[Task]) -> None:
    """Refuse cells that were made with other settings: their numbers would be wrong here.

    Raises:
        UserError: naming them, and what differs.
    """
    told = {task.name: found for task in tasks if (found := changed(task))}
    if not told:
        return
    lines = [f"  {name}: {'; '.join(found[:5])}" for name, found in list(told.items())[:MAX_TOLD]]
    if len(told) > MAX_TOLD:
        lines.append(f"  ... and {len(told) - MAX_TOLD} more")
    count = "1 cell was" if len(told) == 1 else f"{len(told)} cells were"
    raise UserError(
        "\n".join([f"{count} made with other settings", *lines]),
        where=str(tasks[0].folder.parent),
        do="restore these settings, remove the cells' folders, or choose another output "
        "(--set output=FOLDER)",
    )


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
