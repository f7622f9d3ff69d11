"""Jobs on a Ray cluster, such as cells. Their folders must be on a disk that all nodes share."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlora_cli.comparison.engine import Ended, Engine, Job, Report
from tlora_cli.foundation.errors import Status, UserError, system_reason
from tlora_cli.training.interruption import Interruption

LISTEN = 0.25
"""Seconds between looks at whether to stop."""
KNOCK_SECONDS = 10.0
"""Time that a cluster may take to answer at all."""
SHARED_SECONDS = 10.0
"""Time that a shared disk may take to show what another machine has written."""
RETRIES = 3
"""Times that a job is begun again whose worker has died."""
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
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _refused(error, address) from error
        self._workers = workers
        self._gpus = 1 if gpu and self._ray.cluster_resources().get("GPU", 0) >= 1 else 0

    def run(self, jobs: Sequence[Job], report: Report) -> None:
        """See `Engine`."""
        ray = self._ray
        waiting, running = deque(jobs), dict[Any, Job]()
        asked = Interruption()
        most = self._workers or len(jobs)
        try:
            with asked.watching():
                while (waiting or running) and not asked.asked:
                    while waiting and len(running) < most:
                        job = waiting.popleft()
                        running[self._submit(job)] = job
                        report.started(job.name)
                    for done in ray.wait(list(running), timeout=LISTEN)[0]:
                        job = running.pop(done)
                        report.ended(job.name, self._outcome(done, job))
                if asked.asked:
                    self._stop(list(running))
        finally:
            ray.shutdown()
        if asked.asked:
            raise asked.stopped()

    def _submit(self, job: Job) -> Any:
        # A process a job, as on one machine: what a job leaves in memory is gone with it. Begun
        # again on another worker, it goes on where the last checkpoint was.
        work = self._ray.remote(
            num_cpus=job.threads, num_gpus=self._gpus, max_retries=RETRIES, max_calls=1
        )(_do)
        return work.options(name=job.name).remote(job, str(Path.cwd()))

    def _outcome(self, done: Any, job: Job) -> Ended:
        """Return how a job has ended: well, if its result is there."""
        try:
            how: Ended = self._ray.get(done)
        except self._ray.exceptions.RayError as failure:
            reason = " ".join(str(failure).split())[:300]
            return Ended(f"its Ray worker failed: {reason}", Status.LATER)
        if how.error:
            return how
        until = time.monotonic() + SHARED_SECONDS
        while not job.is_finished():
            if time.monotonic() > until:
                return Ended(
                    f"it ended on a Ray worker, but its result is not in {job.folder}: the output "
                    "must be on a disk that all nodes share",
                    Status.MISTAKE,
                )
            time.sleep(0.5)
        return Ended()

    def _stop(self, running: list[Any]) -> None:
        """Ask the cells at work to save and stop, and give them time."""
        for one in running:
            self._ray.cancel(one)
        if running:
            self._ray.wait(running, num_returns=len(running), timeout=SAVING_SECONDS)


def _refused(error: BaseException, address: str) -> UserError:
    """Return why a cluster can't be used."""
    where, told = f"--ray {address}", ""
    link: BaseException | None = error
    while link is not None:
        told += f"{type(link).__name__} {link} "
        link = link.__cause__ or link.__context__
    if "authentication" in told.lower() or "unauthenticated" in told.lower():
        given = os.environ.get("RAY_AUTH_TOKEN")
        return UserError(
            "the Ray cluster answers, and doesn't take the token in RAY_AUTH_TOKEN"
            if given
            else "the Ray cluster asks for a token, and RAY_AUTH_TOKEN is not set",
            where=where,
            do="set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's own token, as "
            "`ray get-auth-token` prints it there",
            kind=Status.MISSING,
        )
    return UserError(
        f"no Ray cluster answers: {' '.join(str(error).split())[:300]}",
        where=where,
        do="start one with `ray start --head`, and name its address",
        kind=Status.LATER,
    )


def _knock(address: str) -> None:
    """Raise an OSError if nothing listens at a HOST:PORT: ray itself would try for a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


def _do(job: Job, folder: str) -> Ended:
    """Do a job on a worker; return how it ended.

    Args:
        job: a cell, say.
        folder: current folder of the command, to which its paths are relative.
    """
    from tlora_cli.comparison.run_cell import attempt

    try:
        os.chdir(folder)
    except OSError as refusal:
        return Ended(
            f"the worker has no folder {folder}: {system_reason(refusal)}; all nodes must share it",
            Status.MISTAKE,
        )
    job.folder.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as log:
        how = attempt(job, lambda line: print(line, file=log, flush=True), log)
    return how or Ended("it was stopped", Status.LATER)
