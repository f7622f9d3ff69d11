"""Jobs in processes of this machine, one process a job.

A job that dies takes nothing with it. The processes come from a server that has imported the model
libraries once, so a cell starts at once and no GPU is shared by a fork. They end with the process
that started them, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

from tlora_cli.comparison.engine import Ended, Engine, Job, Report
from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.signals import SIGNALS
from tlora_cli.foundation.stopping import hear, stoppable
from tlora_cli.training.interruption import Interruption

START_METHOD = "forkserver"
LISTEN = 0.25
"""Seconds between looks at whether to stop."""


@dataclass
class _Running:
    """A cell at work."""

    job: Job
    process: Any
    pipe: Any
    gpu: str | None
    how: Ended | None = None
    """Its end; None while it has not said."""
    stopped: bool = False


class LocalEngine(Engine):
    """Processes of this machine.

    Args:
        workers: cells at once; None for one a GPU, or one alone where there is no GPU.
        gpus: names of GPUs as CUDA_VISIBLE_DEVICES has them, of which each worker gets its own;
            none for cells that run on the CPU.

    Raises:
        UserError: if there are more workers than GPUs.
    """

    def __init__(self, workers: int | None = None, gpus: Sequence[str] = ()) -> None:
        if gpus and workers is not None and workers > len(gpus):
            raise UserError(
                f"{workers} workers for {len(gpus)} GPUs",
                where="workers",
                do=f"take {len(gpus)} at most: each cell has a GPU to itself",
            )
        self._free: list[str | None] = [*gpus[:workers]] if gpus else [None] * (workers or 1)

    def run(self, jobs: Sequence[Job], report: Report) -> None:
        """See `Engine`."""
        context: Any = multiprocessing.get_context(START_METHOD)
        if START_METHOD == "forkserver":
            context.set_forkserver_preload(["tlora_cli.comparison.preload"])
        waiting, running = deque(jobs), dict[Any, _Running]()
        asked, told = Interruption(), False
        try:
            with asked.watching():
                while running or (waiting and not asked.asked):
                    while waiting and self._free and not asked.asked:
                        one = self._start(context, waiting.popleft())
                        running[one.pipe] = one
                        report.started(one.job.name)
                    if asked.asked and not told:
                        told = True
                        for one in running.values():
                            one.process.terminate()
                    for pipe in connection.wait(list(running), LISTEN):
                        if _listen(running[pipe], report):
                            one = running.pop(pipe)
                            self._free.append(one.gpu)
                            _ended(one, report, asked.asked)
        finally:
            for one in running.values():
                one.process.kill()
                one.process.join()
        if asked.asked:
            raise asked.stopped()

    def _start(self, context: Any, job: Job) -> _Running:
        gpu = self._free.pop(0)
        own, other = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(job, gpu, other), name=job.name)
        process.start()
        other.close()
        return _Running(job, process, own, gpu)


def _listen(one: _Running, report: Report) -> bool:
    """Take what a cell says; return whether its process has ended."""
    try:
        kind, text = one.pipe.recv()
    except EOFError:
        one.pipe.close()
        one.process.join()
        return True
    if kind == "said":
        report.said(one.job.name, text)
    elif kind == "stopped":
        one.stopped = True
    else:
        one.how = text
    return False


def _ended(one: _Running, report: Report, asked: bool) -> None:
    if one.how is not None:
        report.ended(one.job.name, one.how)
    elif not (asked or one.stopped):
        code = one.process.exitcode
        killed = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else "ended"
        short = code == -signal.SIGKILL
        hint = ", perhaps for want of memory" if short else ""
        kind = Status.NO_ROOM if short else Status.FAULT
        report.ended(one.job.name, Ended(f"its process {killed} without a result{hint}", kind))


def _child(job: Job, gpu: str | None, pipe: Any) -> None:
    """Do a cell in this process, and tell through the pipe."""
    os.setsid()  # Ctrl-C is for the parent, which asks politely
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    with stoppable():  # what is being written is taken away again, also before a training listens
        try:
            how = _work(job, gpu, pipe)
        except KeyboardInterrupt as stop:
            hear(stop)
            how = None
    pipe.send(("stopped", "") if how is None else ("ended", how))


def _work(job: Job, gpu: str | None, pipe: Any) -> Ended | None:
    """Do a cell, and return how it ended; None if it was asked to stop."""
    _end_with_parent()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    job.folder.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as log:
        for standard in (1, 2):
            os.dup2(log.fileno(), standard)

        def notify(line: str) -> None:
            print(line, file=log, flush=True)
            pipe.send(("said", line))

        from tlora_cli.comparison.run_cell import attempt

        return attempt(job, notify, log)


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    from tlora_cli.foundation.devices import count_accelerators  # torch takes seconds

    count = count_accelerators()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else [str(number) for number in range(count)]
    return [name.strip() for name in names[:count]]


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, however that came about."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
