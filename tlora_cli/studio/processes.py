"""Training runs as processes of their own: begun, asked to stop, and found again.

A run is `tlora train` in a session of its own, so neither a closed tab nor the studio's end stops
it. What is needed to find it again stands in a file; whether a folder is worked in, its lock says.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.files import explained, is_locked, write_text
from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.studio.drafts import RUNS, STUDIO

TAIL = 20_000
"""Bytes of a run's output that are looked at, from its end."""
PACKAGE = __name__.partition(".")[0]
_STARTING = threading.Lock()
_CHILDREN: dict[str, subprocess.Popen[bytes]] = {}
"""Name -> the process, of runs that this very studio began."""


@dataclass
class RunProcess:
    """A run that a studio began.

    Attributes:
        pid: of its process.
        created: when that began, as the system says; numbers of processes come again.
        words: the command.
        asked: whether it was asked to stop.
    """

    pid: int
    created: float
    words: list[str]
    asked: bool = False

    @property
    def alive(self) -> bool:
        """Whether it goes on."""
        try:
            process = psutil.Process(self.pid)
            same = process.create_time() == self.created
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False


def folder_of(name: str) -> Path:
    """Return where the output of a run's process is kept."""
    return STUDIO / name


def process_of(name: str) -> RunProcess | None:
    """Return the process that was begun last for a run, alive or not; None if there was none."""
    if (child := _CHILDREN.get(name)) is not None:
        child.poll()  # else an ended one stays as a zombie
    try:
        said = parse_json((folder_of(name) / "process.json").read_text(encoding="utf-8"))
        return RunProcess(**said)
    except (OSError, ValueError, TypeError):
        return None


def is_alive(name: str, run: Path) -> bool:
    """Whether a run goes on, begun by a studio or in a terminal."""
    process = process_of(name)
    return (process is not None and process.alive) or is_locked(run)


def busy_runs(works: dict[str, Path]) -> list[str]:
    """Return the names of the runs that go on.

    Args:
        works: name -> run folder.
    """
    return [name for name, run in works.items() if is_alive(name, run)]


def begin(name: str, arguments: list[str], works: dict[str, Path]) -> None:
    """Begin a run, unless one goes on: two tabs, or a tab and a terminal, don't start two.

    Args:
        name: of the draft or the run.
        arguments: of `tlora train`.
        works: name -> run folder, of all that could go on.

    Raises:
        UserError: if a run goes on, or the process can't be started.
    """
    with _STARTING:
        if busy := busy_runs(works):
            raise UserError(
                f"a run goes on: {busy[0]}",
                do="wait for its end, or stop it; one at a time has the machine",
                kind=Status.LATER,
            )
        _begin(name, [PRODUCT, "train", *arguments])


def _begin(name: str, words: list[str]) -> None:
    folder = folder_of(name)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "train.log").open("wb") as log:
            log.write(f"$ {shlex.join(words)}\n".encode())
            log.flush()
            child = subprocess.Popen(
                [sys.executable, "-m", PACKAGE, *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=_environment(),
            )
    _CHILDREN[name] = child
    created = psutil.Process(child.pid).create_time()
    _record(name, RunProcess(child.pid, created, words))


def _environment() -> dict[str, str]:
    """Return variables with which the process finds this very program, and prints at once."""
    here = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


def _record(name: str, process: RunProcess) -> None:
    write_text(folder_of(name) / "process.json", json.dumps(asdict(process)) + "\n")


def ask_to_stop(name: str, run: Path) -> None:
    """Ask a run to stop after its step and to save; asked again, it is left to do so.

    Raises:
        UserError: if it doesn't go on, or was begun elsewhere.
    """
    with _STARTING:
        process = process_of(name)
        if process is None or not process.alive:
            if is_locked(run):
                raise UserError(
                    "this run was begun in a terminal", do="press Ctrl-C there to stop it"
                )
            raise UserError("this run has ended already", do="load the page again")
        if process.asked:
            return
        process.asked = True
        _record(name, process)
        with suppress(ProcessLookupError):  # it ended at this very moment
            os.kill(process.pid, signal.SIGTERM)


def output_of(name: str) -> list[str]:
    """Return the last lines that a run's process printed; empty if there are none."""
    try:
        with (folder_of(name) / "train.log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def failure_of(name: str) -> str:
    """Return why the process of a run failed, as it said it; empty if it didn't."""
    lines = output_of(name)
    for number in range(len(lines) - 1, -1, -1):
        if re.match(r"(internal )?error: ", lines[number]):
            return "\n".join(lines[number:])
        if lines[number].startswith(("stopped by ", "adapter: ")):
            return ""
    return ""


def works_of(drafts: dict[str, str]) -> dict[str, Path]:
    """Return name -> run folder of all that is here: of drafts, and of runs of the command line.

    Args:
        drafts: name -> its run folder; empty before it began.
    """
    works = {name: Path(run) if run else RUNS / name for name, run in drafts.items()}
    taken = set(works.values())
    try:
        folders = sorted(path for path in RUNS.iterdir() if path.is_dir())
    except OSError:
        folders = []
    for folder in folders:
        if folder not in taken and folder.name not in works:
            works[folder.name] = folder
    return works
