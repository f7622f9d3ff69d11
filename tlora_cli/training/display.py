"""The display while a run trains: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tlora_cli.foundation.durations import clock
from tlora_cli.training.metrics import StepRecord

PLAIN_SECONDS = 10.0
"""Least time between two plain lines."""


class Display:
    """A live bar on a terminal; a plain line now and then elsewhere."""

    def __init__(self, console: Console, steps: int, step: int) -> None:
        self.console = console
        self.steps = steps
        self._first = step
        self._began = time.monotonic()
        self._last_line = 0.0
        self._loss: float | None = None
        self._bar = Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=steps, completed=step)

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, record: StepRecord) -> None:
        """Show a finished step; the loss shown is a running mean over about 50 steps."""
        if self._loss is None:
            self._loss = record.loss
        self._loss += 0.04 * (record.loss - self._loss)
        elapsed = time.monotonic() - self._began
        speed = (record.step - self._first) / max(elapsed, 1e-9)
        left = (self.steps - record.step) / max(speed, 1e-9)
        rank = "" if record.active_rank is None else f"rank {record.active_rank:.0f}  "
        text = (
            f"loss {self._loss:.4f}  {rank}{_speed(speed)}  "
            f"{clock(left)} left  {record.memory_gb:.1f} GB"
        )
        self._bar.update(self._task, completed=record.step, description=text)
        now = time.monotonic()
        last = record.step == self.steps
        if not self.console.is_terminal and (last or now - self._last_line >= PLAIN_SECONDS):
            self._last_line = now
            self.print(f"step {record.step}/{self.steps}  {text}")

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def paused(self, what: str) -> Iterator[None]:
        """Show what else is being done; its time does not count as steps."""
        shown = self._bar.tasks[self._task].description
        self._bar.update(self._task, description=f"{shown}  {what}")
        before = time.monotonic()
        yield
        self._began += time.monotonic() - before
        self._bar.update(self._task, description=shown)


def _speed(steps_per_second: float) -> str:
    if steps_per_second >= 1:
        return f"{steps_per_second:.1f} it/s"
    return f"{1 / max(steps_per_second, 1e-9):.1f} s/it"
