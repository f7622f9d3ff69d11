"""Progress of a run: metrics on disk, and a display for people."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor

from tlora_cli.foundation.durations import clock
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import explained, write_text
from tlora_cli.foundation.untrusted_json import parse_json

PLAIN_SECONDS = 10.0
"""Least time between two plain lines."""


@dataclass(frozen=True)
class StepRecord:
    """One finished step, as written to metrics.jsonl.

    Attributes:
        loss: mean over the step's forward passes.
        timestep: mean of the drawn timesteps; active_rank: of their ranks, None without ranks.
        lr: learning rate. d: Prodigy's estimate, else None.
        seconds: since the run began, over all sittings.
        memory_gb: peak GPU memory, or the process's peak where there is no GPU.
        samples: timestep and loss of each picture of the concept, of a step that has several
            samples; else None, because `timestep` and `loss` say it.
    """

    step: int
    loss: float
    timestep: float
    active_rank: float | None
    lr: float
    d: float | None
    seconds: float
    memory_gb: float
    samples: tuple[tuple[float, float], ...] | None = None


class Pending:
    """Finished steps whose numbers are still on the device; the host need not wait for them."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[StepRecord, Tensor, torch.cuda.Event | None]] = deque()

    def put(
        self,
        record: StepRecord,
        loss: Tensor,
        d: Tensor | float | None,
        losses: Tensor | None = None,
    ) -> None:
        """Take a step's record and the numbers to be filled in.

        Args:
            record: of the step.
            loss: scalar, on the device.
            d: Prodigy's estimate, if that is the optimizer.
            losses: of the record's samples, if it has them.
        """
        numbers = [loss.detach().double()]
        if d is not None:
            numbers.append(torch.as_tensor(d, dtype=torch.float64, device=loss.device))
        read = torch.stack(numbers)
        if losses is not None:
            read = torch.cat([read, losses.detach().double()])
        event = None
        if read.is_cuda:
            copied = torch.empty(read.shape, dtype=read.dtype, pin_memory=True)
            read = copied.copy_(read, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._waiting.append((record, read, event))

    def take(self, wait: bool) -> Iterator[StepRecord]:
        """Yield the records that are complete, in order; all of them if told to wait."""
        while self._waiting:
            record, read, event = self._waiting[0]
            if event is not None and not event.query():  # type: ignore[no-untyped-call]
                if not wait:
                    return
                event.synchronize()
            self._waiting.popleft()
            loss, *more = read.tolist()
            losses = [more.pop() for _ in record.samples or ()][::-1]
            samples = record.samples and tuple(
                (t, own) for (t, _), own in zip(record.samples, losses, strict=True)
            )
            yield replace(record, loss=loss, d=more[0] if more else None, samples=samples)


class Metrics:
    """metrics.jsonl; it forgets what lies after a resumed step."""

    def __init__(self, path: Path, step: int) -> None:
        _truncate(path, step)
        self._path = path
        with explained(path):
            self._file = path.open("a", encoding="utf-8")

    def write(self, record: StepRecord) -> None:
        """Write one step."""
        values = {k: v for k, v in asdict(record).items() if v is not None}
        with explained(self._path):
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Flush and close."""
        with explained(self._path):
            self._file.close()


def _truncate(path: Path, step: int) -> None:
    """Drop lines after `step`, and a last line cut short by a crash."""
    if not path.exists():
        return
    if not path.is_file():
        raise UserError(
            f"{path.name} is not a file", str(path), "move it away; training writes it anew"
        )
    with explained(path):
        lines = path.read_bytes().split(b"\n")
    kept = [line.decode() + "\n" for line in lines if _is_of_step(line, step)]
    write_text(path, "".join(kept))


def _is_of_step(line: bytes, last: int) -> bool:
    """Whether a line is the record of a step up to `last`; what is damaged is none."""
    try:
        record = parse_json(line.decode())
    except ValueError:
        return False
    number = record.get("step") if isinstance(record, dict) else None
    return isinstance(number, int) and number <= last


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
            self.say(f"step {record.step}/{self.steps}  {text}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def paused(self, what: str) -> Iterator[None]:
        """Say what else is being done; its time does not count as steps."""
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
