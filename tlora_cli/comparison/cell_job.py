"""A cell as a job for an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tlora_cli.comparison.tasks import Task, read_result


@dataclass(frozen=True)
class CellJob:
    """A cell. An `engine.Job`.

    Attributes:
        task: all that a worker needs to know of it.
    """

    task: Task

    @property
    def name(self) -> str:
        """See `engine.Job`."""
        return self.task.name

    @property
    def folder(self) -> Path:
        """See `engine.Job`."""
        return self.task.folder

    @property
    def log(self) -> Path:
        """See `engine.Job`."""
        return self.task.log

    @property
    def threads(self) -> int:
        """See `engine.Job`."""
        return self.task.threads

    def work(self, notify: Callable[[str], None]) -> None:
        """See `engine.Job`."""
        from tlora_cli.comparison.run_cell import work  # in the process that does it: imports torch

        work(self.task, notify)

    def is_finished(self) -> bool:
        """See `engine.Job`."""
        return read_result(self.task) is not None
