"""The display while jobs run: a line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from tlora_cli.comparison.engine import Ended, Report
from tlora_cli.foundation.durations import clock

SHOWN = 2
"""Jobs at work whose last line is shown."""


class ProgressLine:
    """Counts jobs, and shows what those at work are doing. An `engine.Report`.

    Args:
        console: where it is shown.
        total: jobs in all.
        finished: of them, those that were finished before.
        called: what the jobs are, such as cells.
        also: told the same; None for nobody.
    """

    def __init__(
        self,
        console: Console,
        total: int,
        finished: int,
        called: str = "cells",
        also: Report | None = None,
    ) -> None:
        self.console, self._also = console, also
        self.failed: dict[str, Ended] = {}
        self._total, self._done, self._first = total, finished, finished
        self._began = time.monotonic()
        self._at_work: dict[str, tuple[float, str]] = {}
        self._bar = Progress(
            TextColumn(called + " {task.completed}/{task.total}"),
            BarColumn(bar_width=20),
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            console=console,
            disable=not console.is_terminal,
            expand=True,
        )
        self._task = self._bar.add_task("", total=total, completed=finished)

    def __enter__(self) -> ProgressLine:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def started(self, job: str) -> None:
        """Show a job at work."""
        if self._also:
            self._also.started(job)
        self._at_work[job] = (time.monotonic(), "")
        self._update()

    def said(self, job: str, line: str) -> None:
        """Show how far it is."""
        if self._also:
            self._also.said(job, line)
        if job in self._at_work:
            self._at_work[job] = (self._at_work[job][0], line)
            self._update()

    def ended(self, job: str, how: Ended) -> None:
        """Count it, and say so."""
        if self._also:
            self._also.ended(job, how)
        began, _ = self._at_work.pop(job, (time.monotonic(), ""))
        took = clock(time.monotonic() - began)
        if how.error:
            self.failed[job] = how
            text = f"{job}: failed after {took}: {how.error.splitlines()[0]}"
        else:
            self._done += 1
            text = f"{job}: done in {took}"
        counts = f"[{self._done}/{self._total}]"
        self._bar.console.print(f"{counts} {text}", highlight=False, markup=False, soft_wrap=True)
        self._update()

    def _update(self) -> None:
        parts = [f"{len(self.failed)} failed"] if self.failed else []
        if (done := self._done - self._first) > 0:
            left = self._total - self._done - len(self.failed)
            parts.append(f"{clock((time.monotonic() - self._began) / done * left)} left")
        for job, (_, line) in list(self._at_work.items())[:SHOWN]:
            parts.append(f"{job}: {line}" if line else job)
        if len(self._at_work) > SHOWN:
            parts.append(f"and {len(self._at_work) - SHOWN} more")
        self._bar.update(self._task, completed=self._done, description="  ".join(parts))
