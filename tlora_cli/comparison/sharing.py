"""Cells that a comparison beside this one has finished: taken over, not run again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tlora_cli.comparison.cells import CELLS, MARK
from tlora_cli.comparison.tasks import Result, Task, read_result, result_key
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import LOCK, TEMPORARY, folder_atomically, remove_leftovers

LINKED = ".safetensors"
"""Files that are only ever replaced as a whole: they take no second place on the disk."""
LEFT = (LOCK, f"{TEMPORARY}*")


def take_over(tasks: Sequence[Task], folder: Path) -> dict[str, Result]:
    """Take the results of cells that were finished in folders of comparisons beside `folder`.

    A result is the same if its key is: the digest of all settings that weights, pictures and scores
    depend on. A cell that has been begun here is left to go on.

    Args:
        tasks: cells without a result.
        folder: of this comparison.

    Returns:
        Name of the cell -> its result, for those that have one now.
    """
    cells = folder / CELLS
    if cells.is_dir():
        remove_leftovers(cells)
    wanted = {task.key: task for task in tasks if not task.folder.exists()}
    taken: dict[str, Result] = {}
    if not wanted:
        return taken
    for other in _cells_beside(folder):
        task = wanted.get(result_key(other) or "")
        if task is None:
            continue
        there = replace(task, folder=other)
        if read_result(there) is None:
            continue
        try:
            _copy_cell(other, task.folder)
        except UserError:
            if read_result(there) is not None:
                raise
            continue  # it is done anew there: files went while they were copied
        result = read_result(task)
        if result is None:  # it was changed while it was copied
            shutil.rmtree(task.folder)
            continue
        del wanted[task.key]
        taken[task.name] = result
    return taken


def _cells_beside(folder: Path) -> Iterator[Path]:
    """Yield the cells of all other comparisons in the same parent folder, in order of name."""
    own = folder.absolute()
    for other in sorted(own.parent.iterdir()):
        if other != own and (other / MARK).is_file() and (other / CELLS).is_dir():
            yield from sorted((other / CELLS).iterdir())


def _copy_cell(other: Path, folder: Path) -> None:
    with folder_atomically(folder) as temporary:
        shutil.copytree(
            other,
            temporary,
            copy_function=_copy,
            ignore=shutil.ignore_patterns(*LEFT),
            dirs_exist_ok=True,
        )


def _copy(source: str, target: str) -> None:
    """Copy a file, or give it a second name where nothing will be written into it."""
    if source.endswith(LINKED):
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # the disk has no such names: a copy does as well
    shutil.copy2(source, target)
