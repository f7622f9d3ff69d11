"""Trackers beside a training: each on a thread of its own, so that none can stop or slow it."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

from tlora_cli.foundation.pictures import picture_settings
from tlora_cli.training.metrics import StepRecord
from tlora_cli.training.trackers.base import LoggedImage, TrackedRun, Tracker, make_tracker

WINDOW = 20
"""Steps over which the speed is taken."""
PATIENCE = 60.0
"""Seconds that the end of a run waits for its trackers."""

Notify = Callable[[str], None]
"""Shows the user a line; may be called from any thread."""


class Trackers:
    """The trackers of a run; as a context they end with it, at once on Ctrl-C.

    Args:
        names: of `TRACKERS`.
        run: what they know of it.
        notify: shows the user a line.
    """

    def __init__(self, names: Sequence[str], run: TrackedRun, notify: Notify) -> None:
        self._recent: deque[StepRecord] = deque(maxlen=WINDOW + 1)
        self._threads = [_TrackerThread(name, make_tracker(name), run, notify) for name in names]

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(wait=kind is None or not issubclass(kind, KeyboardInterrupt))

    def log(self, record: StepRecord) -> None:
        """Hand a finished step on; returns at once."""
        self._recent.append(record)
        numbers = self._numbers(record)
        for thread in self._threads:
            thread.ask(lambda tracker: tracker.log(record.step, numbers))

    def log_images(self, step: int, folder: Path) -> None:
        """Hand on the previews in a folder; returns at once."""
        for thread in self._threads:
            thread.ask(partial(_log_images, step, folder))

    def end(self, wait: bool = True) -> None:
        """Let them finish; wait for that, but no longer than `PATIENCE` seconds in all."""
        for thread in self._threads:
            thread.finish()
        if not wait:
            return
        until = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _numbers(self, record: StepRecord) -> dict[str, float]:
        first = self._recent[0]
        steps, seconds = record.step - first.step, record.seconds - first.seconds
        numbers = {
            "loss": record.loss,
            "lr": record.lr,
            "active_rank": record.active_rank,
            "timestep": record.timestep,
            "d": record.d,
            "steps_per_second": steps / seconds if seconds > 0 else None,
            "memory_gb": record.memory_gb,
        }
        return {f"train/{name}": value for name, value in numbers.items() if value is not None}


def _log_images(step: int, folder: Path, tracker: Tracker) -> None:
    images = []
    for file in sorted(folder.glob("*.png")):
        said = picture_settings(file)
        images.append(LoggedImage(file, f"{said['prompt']}, seed {said['seed']}"))
    tracker.log_images(step, images)


class _TrackerThread:
    """One tracker and what it was asked to do; after a failure it is asked nothing more."""

    def __init__(self, name: str, tracker: Tracker, run: TrackedRun, notify: Notify) -> None:
        self._name, self._tracker, self._run, self._notify = name, tracker, run, notify
        self._asked: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._failed = self._left = False
        # A daemon: a server that never answers must not keep the process.
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def ask(self, what: Callable[[Tracker], None]) -> None:
        """Have it do something later."""
        if not self._failed:
            self._asked.put(what)

    def finish(self) -> None:
        """Have it end once it has done all it was asked."""
        self._asked.put(None)

    def join(self, seconds: float) -> None:
        """Wait for that end."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._left = True
            self._notify(f"{self._name} did not finish in time; it may lack the last steps")

    def _work(self) -> None:
        try:
            if note := self._tracker.start(self._run):
                self._notify(note)
            while (what := self._asked.get()) is not None:
                what(self._tracker)
            self._tracker.finish()
        except Exception as error:  # whatever it is, the training is worth more
            self._failed = True
            if self._left:
                return  # the user knows
            reason = str(error).partition("\n")[0]
            self._notify(
                f"{self._name} failed ({type(error).__name__}: {reason}); the training goes on "
                "without it"
            )
