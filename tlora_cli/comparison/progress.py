"""The display while cells run: a line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from tlora_cli.foundation.durations import clock

SHOWN = 2
"""Cells at work whose last line is shown."""


class ProgressLine:
    """Counts cells, and shows what those at work are doing. An `engine.Report`.

    Args:
        console: where it is shown.
        total: cells of the comparison.
        finished: of them, those that were finished before.
    """

    def __init__(self, console: Console, total: int, finished: int) -> None:
        self.console = console
        self.failed: dict[str, str] = {}
        self._total, self._done, self._first = total, finished, finished
        self._began = time.monotonic()
        self._at_work: dict[str, tuple[float, str]] = {}
        self._bar = Progress(
            TextColumn("cells {task.completed}/{task.total}"),
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

    def started(self, cell: str) -> None:
        """Show a cell at work."""
        self._at_work[cell] = (time.monotonic(), "")
        self._update()

    def said(self, cell: str, line: str) -> None:
        """Show how far it is."""
        if cell in self._at_work:
            self._at_work[cell] = (self._at_work[cell][0], line)
            self._update()

    def ended(self, cell: str, error: str) -> None:
        """Count it, and say so."""
        began, _ = self._at_work.pop(cell, (time.monotonic(), ""))
        took = clock(time.monotonic() - began)
        if error:
            self.failed[cell] = error
            text = f"{cell}: failed after {took}: {error.splitlines()[0]}"
        else:
            self._done += 1
            text = f"{cell}: done in {took}"
        counts = f"[{self._done}/{self._total}]"
        self._bar.console.print(f"{counts} {text}", highlight=False, markup=False, soft_wrap=True)
        self._update()

    def _update(self) -> None:
        parts = [f"{len(self.failed)} failed"] if self.failed else []
        if (done := self._done - self._first) > 0:
            left = self._total - self._done - len(self.failed)
            parts.append(f"{clock((time.monotonic() - self._began) / done * left)} left")
        for cell, (_, line) in list(self._at_work.items())[:SHOWN]:
            parts.append(f"{cell}: {line}" if line else cell)
        if len(self._at_work) > SHOWN:
            parts.append(f"and {len(self._at_work) - SHOWN} more")
        self._bar.update(self._task, completed=self._done, description="  ".join(parts))
