"""The protocol of what runs jobs, such as cells: processes of this machine, or a Ray cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tlora_cli.foundation.errors import Status


@dataclass(frozen=True)
class Ended:
    """The end of a job.

    Attributes:
        error: what went wrong, in words; empty if nothing.
        kind: of the error, as the exit status has it.
    """

    error: str = ""
    kind: Status = Status.DONE


class Stopped(Exception):
    """The job was asked to stop, and has saved what it had."""


class Job(Protocol):
    """Work for a process of its own, here or on another machine: plain values that are sent there.

    It can be begun again wherever it was left.
    """

    @property
    def name(self) -> str:
        """Its name, unlike that of others."""

    @property
    def folder(self) -> Path:
        """Its own folder."""

    @property
    def log(self) -> Path:
        """The file of what it said."""

    @property
    def threads(self) -> int:
        """CPU threads."""

    def work(self, notify: Callable[[str], None]) -> None:
        """Do it, as far as it isn't done.

        Raises:
            UserError: for what the user can mend.
            Stopped: if a signal asked it to stop.
        """

    def is_finished(self) -> bool:
        """Whether its result is on the disk."""


class Report(Protocol):
    """Told how the jobs are coming along."""

    def started(self, job: str) -> None:
        """Hear that a job has begun."""

    def said(self, job: str, line: str) -> None:
        """Hear how far it is."""

    def ended(self, job: str, how: Ended) -> None:
        """Hear that it is finished, or has failed."""


class Engine(ABC):
    """Runs jobs, several at once; what becomes of one doesn't touch the others."""

    @abstractmethod
    def run(self, jobs: Sequence[Job], report: Report) -> None:
        """Do all jobs, in any order; `ended` is reported for each.

        Raises:
            KeyboardInterrupt: if it was stopped; the jobs at work have saved what they had.
        """
