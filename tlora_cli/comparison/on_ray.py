"""Cells on a Ray cluster. The folder of the comparison must be on a disk that all nodes share."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlora_cli.comparison.engine import Engine, Report
from tlora_cli.comparison.tasks import Task, read_result
from tlora_cli.foundation.errors import Status, UserError, system_reason
from tlora_cli.training.interruption import Interruption

LISTEN = 0.25
"""Seconds between looks at whether to stop."""
KNOCK_SECONDS = 10.0
"""Time that a cluster may take to answer at all."""
SHARED_SECONDS = 10.0
"""Time that a shared disk may take to show what another machine has written."""
SAVING_SECONDS = 120.0
"""Time that cells which were asked to stop may take to save."""


class RayEngine(Engine):
    """A Ray cluster that is there already.

    Args:
        address: as of `ray.init`: auto, HOST:PORT or ray://HOST:PORT.
        workers: most cells at once; None for as many as the cluster has room for.
        gpu: whether each cell gets a GPU, where the cluster has any.

    Raises:
        UserError: if ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str, workers: int | None = None, gpu: bool = True) -> None:
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "ray is not installed",
                where="--ray",
                do="pip install 'tlora[ray]'",
                kind=Status.MISSING,
            ) from error
        self._ray: Any = ray
        try:
            _knock(address)
            # Workers find this very package, also where it runs from source.
            own = str(Path(__file__).parents[2])
            path = os.pathsep.join(p for p in (own, os.environ.get("PYTHONPATH")) if p)
            self._ray.init(
                address=address,
                log_to_driver=False,
                configure_logging=False,
                runtime_env={"env_vars": {"PYTHONPATH": path}},
            )
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"no Ray cluster answers: {reason}",
                where=f"--ray {address}",
                do="start one with `ray start --head`, and name its address",
                kind=Status.LATER,
            ) from error
        self._workers = workers
        self._gpus = 1 if gpu and self._ray.cluster_resources().get("GPU", 0) >= 1 else 0

    def run(self, tasks: Sequence[Task], report: Report) -> None:
        """See `Engine`."""
        ray = self._ray
        waiting, running = deque(tasks), dict[Any, Task]()
        asked = Interruption()
        most = self._workers or len(tasks)
        try:
            with asked.watching():
                while (waiting or running) and not asked.asked:
                    while waiting and len(running) < most:
                        task = waiting.popleft()
                        running[self._submit(task)] = task
                        report.started(task.name)
                    for done in ray.wait(list(running), timeout=LISTEN)[0]:
                        task = running.pop(done)
                        report.ended(task.name, self._outcome(done, task))
                if asked.asked:
                    self._stop(list(running))
        finally:
            ray.shutdown()
        if asked.asked:
            raise asked.stopped()

    def _submit(self, task: Task) -> Any:
        # A process a cell, as on one machine: what a cell leaves in memory is gone with it.
        cell = self._ray.remote(
            num_cpus=task.threads, num_gpus=self._gpus, max_retries=0, max_calls=1
        )(_do)
        return cell.options(name=task.name).remote(task, str(Path.cwd()))

    def _outcome(self, done: Any, task: Task) -> str:
        """Return the error of a task that has ended; empty if its result is there."""
        try:
            error: str = self._ray.get(done)
        except self._ray.exceptions.RayError as failure:
            return f"its Ray worker failed: {' '.join(str(failure).split())[:300]}"
        if error:
            return error
        until = time.monotonic() + SHARED_SECONDS
        while read_result(task) is None:
            if time.monotonic() > until:
                return (
                    f"it ended on a Ray worker, but its result is not in {task.folder}: the output "
                    "must be on a disk that all nodes share"
                )
            time.sleep(0.5)
        return ""

    def _stop(self, running: list[Any]) -> None:
        """Ask the cells at work to save and stop, and give them time."""
        for one in running:
            self._ray.cancel(one)
        if running:
            self._ray.wait(running, num_returns=len(running), timeout=SAVING_SECONDS)


def _knock(address: str) -> None:
    """Raise an OSError if nothing listens at a HOST:PORT: ray itself would try for a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


def _do(task: Task, folder: str) -> str:
    """Do a cell on a worker; return its error, empty if all is well.

    Args:
        task: the cell.
        folder: current folder of the comparison, to which its paths are relative.
    """
    from tlora_cli.comparison.run_cell import attempt

    try:
        os.chdir(folder)
    except OSError as refusal:
        return (
            f"the worker has no folder {folder}: {system_reason(refusal)}; all nodes must share it"
        )
    task.folder.mkdir(parents=True, exist_ok=True)
    with task.log.open("a", encoding="utf-8") as log:
        error = attempt(task, lambda line: print(line, file=log, flush=True), log)
    return "it was stopped" if error is None else error
