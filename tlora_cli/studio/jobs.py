"""The tasks that the page waits for: one at a time, in the process that computes (`worker.py`)."""

from __future__ import annotations

import multiprocessing
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.studio import worker

LINES = 40
"""Last lines of a job that are kept."""
TITLES = {
    "machine": "looking at this machine",
    "mask": "finding the subject",
    "plan": "planning the run",
    "draw": "drawing",
    "export": "writing files",
}
MOST_WAITING = 4
"""Tasks that wait at most."""
IDLE = 600.0
"""Seconds after which the process ends that nobody needs: it may hold a base on a card."""
PATIENCE = 3.0
"""Seconds that the process gets to end by itself."""

Take = Callable[[Any], None]
"""Takes a job's result."""


@dataclass
class Job:
    """A task that was given.

    Attributes:
        task: a name of `worker.TASKS`.
        name: of the draft or run it is for.
        state: `running`, `done` or `failed`.
        lines: what it said, the last one last.
        error: why it failed.
        cancelled: whether it was stopped, perhaps before its process was there.
    """

    task: str
    name: str
    state: str = "running"
    lines: list[str] = field(default_factory=list)
    error: UserError | None = None
    cancelled: bool = False

    def told(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "task": self.task,
            "title": TITLES[self.task],
            "name": self.name,
            "state": self.state,
            "lines": self.lines[-LINES:],
            "error": None if self.error is None else told_error(self.error),
        }


def told_error(error: UserError) -> dict[str, str]:
    """Return an error as plain data."""
    return {"what": error.what, "where": error.where, "do": error.do}


class Jobs:
    """Gives tasks to the process, one after another, and keeps the last job of each kind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Job, dict[str, Any], Take]] = deque()
        self._process: Any = None
        self._connection: Any = None
        self._thread: threading.Thread | None = None
        self._idle: threading.Timer | None = None
        self.current: Job | None = None
        self.last: dict[tuple[str, str], Job] = {}

    def submit(self, task: str, name: str, wishes: dict[str, Any], take: Take) -> Job:
        """Begin a task, or have it wait for its turn; what it returns is handed to `take`.

        Raises:
            UserError: if the same is under way, or too much waits.
        """
        with self._lock:
            ahead = [job for job, _, _ in self._waiting]
            if self.current is not None:
                ahead.append(self.current)
            if len(ahead) > MOST_WAITING or any((j.task, j.name) == (task, name) for j in ahead):
                raise _busy(ahead[-1])
            job = self.last[task, name] = Job(task, name)
            self._waiting.append((job, wishes, take))
            if self.current is None:
                self._begin_next()
            return job

    def stop(self) -> None:
        """End what is under way and what waits, and the process; the next task gets a new one."""
        with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            for job, _, _ in self._waiting:
                job.state, job.error = "failed", _stopped()
            self._waiting.clear()
            if self.current is not None:
                self.current.cancelled = True
            self._end_process()
            thread = self._thread
        if thread is not None:
            thread.join(PATIENCE)

    def release(self) -> None:
        """End the process, so that memory is free for training.

        Raises:
            UserError: if a task is under way.
        """
        with self._lock:
            if self.current is not None:
                raise _busy(self.current)
            self._end_process()

    def _begin_next(self) -> None:
        """Begin what waits longest; the lock is held."""
        self.current = None
        if self._idle is not None:
            self._idle.cancel()
        if not self._waiting:
            self._idle = threading.Timer(IDLE, self._end_if_idle)
            self._idle.daemon = True
            self._idle.start()
        else:
            job, wishes, take = self._waiting.popleft()
            self.current = job
            self._thread = threading.Thread(
                target=self._do, args=(job, wishes, take), name=f"studio-{job.task}", daemon=True
            )
            self._thread.start()

    def _end_if_idle(self) -> None:
        with self._lock:
            if self.current is None:
                self._end_process()

    def _end_process(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process = None

    def _do(self, job: Job, wishes: dict[str, Any], take: Take) -> None:
        error: UserError | None = None
        try:
            self._ask(job, wishes, take)
        except UserError as told:
            error = told
        except (EOFError, OSError):  # the process has ended
            error = _stopped()
        with self._lock:
            job.error, job.state = error, "failed" if error else "done"
            self._begin_next()

    def _ask(self, job: Job, wishes: dict[str, Any], take: Take) -> None:
        connection = self._started()
        if job.cancelled:
            raise _stopped()
        connection.send((job.task, wishes))
        while True:
            kind, value = connection.recv()
            if kind == "said":
                job.lines.append(value)
            elif kind == "failed":
                raise value
            else:
                take(value)
                return

    def _started(self) -> Any:
        """Return the connection to the process, which is started if there is none."""
        with self._lock:
            if self._process is None or not self._process.is_alive():
                context = multiprocessing.get_context("spawn")
                self._connection, theirs = context.Pipe()
                self._process = context.Process(
                    target=worker.main, args=(theirs,), name="tlora-studio", daemon=True
                )
                self._process.start()
                theirs.close()
            return self._connection


def _busy(job: Job) -> UserError:
    return UserError(
        f"the studio is busy: {TITLES[job.task]}",
        do="wait for that to end, or stop it",
        kind=Status.LATER,
    )


def _stopped() -> UserError:
    return UserError("it was stopped", do="begin it again", kind=Status.LATER)
