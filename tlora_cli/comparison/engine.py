"""The protocol of what runs cells: processes of this machine, or a Ray cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from tlora_cli.comparison.tasks import Task


class Report(Protocol):
    """Told how the cells are coming along."""

    def started(self, cell: str) -> None:
        """Hear that a cell has begun."""

    def said(self, cell: str, line: str) -> None:
        """Hear how far it is."""

    def ended(self, cell: str, error: str) -> None:
        """Hear that it is finished, or has failed with an error."""


class Engine(ABC):
    """Runs cells, several at once; what becomes of one doesn't touch the others."""

    @abstractmethod
    def run(self, tasks: Sequence[Task], report: Report) -> None:
        """Do all tasks, in any order; `ended` is reported for each.

        Raises:
            KeyboardInterrupt: if it was stopped; the cells at work have saved what they had.
        """
