"""Commands that are disturbed: signals at any moment, also as process 1; read-only or full folders.

Each command runs in a fork of this process, where everything is imported, in a folder of its own.
It must end with a documented status, say what happened without a traceback, and leave nothing half
written.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from breaking.commands import with_a_folder_of_nodes
from tlora_cli.__main__ import main
from tlora_cli.foundation.errors import Status
from tlora_cli.foundation.files import TEMPORARY
from tlora_cli.foundation.signals import end_at_once_when_asked

MOMENTS = (0.02, 0.25, 0.5, 0.75, 0.95)
"""Shares of the time that a command takes undisturbed."""
NEW_PIDS = 0x20000000
"""CLONE_NEWPID of Linux: the next child is process 1."""
PATIENCE = 300
"""Seconds that a command may take at most."""


@dataclass(frozen=True)
class Ended:
    """The end of a command.

    Attributes:
        status: exit status; negative for a signal that killed it.
        said: all that it printed.
        seconds: that it took.
        left: files that are new, from its folder down.
    """

    status: int
    said: str
    seconds: float
    left: list[str]

    def faults(self, allowed: tuple[int, ...]) -> list[str]:
        """Return what should not have been; empty if all is in order."""
        found = [] if self.status in allowed else [f"status {self.status}"]
        found += [w for w in ("Traceback", "Exception ignored", "internal error") if w in self.said]
        found += [f"left {name}" for name in self.left if TEMPORARY in name]
        if self.status and not any(w in self.said for w in ("error: ", "stopped by ", "problem ")):
            found.append("no word")
        return found

    @property
    def headline(self) -> str:
        """The first line that says why it has ended."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        told = [line for line in lines if line.startswith(("error: ", "stopped by ", "problem "))]
        return (told or lines or [""])[0][:110]


def run(
    words: list[Any],
    folder: Path,
    number: signal.Signals | None = None,
    after: float = 0.0,
    first: bool = False,
) -> Ended:
    """Run a command in a fork of this process.

    Args:
        words: its arguments.
        folder: that it writes into.
        number: the signal to send; None to let it end.
        after: seconds before that, from where the program hears signals: before, Python does.
        first: whether it is process 1 of a namespace, which needs root.
    """
    before = _files(folder)
    opened, name = tempfile.mkstemp()
    os.close(opened)
    log = Path(name)
    reading, writing = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            if first and ctypes.CDLL(None, use_errno=True).unshare(NEW_PIDS):
                os._exit(99)
            from_command, begun = os.pipe()
            command = os.fork()
            if command == 0:
                os.close(writing)
                os.close(from_command)
                _be(words, log, begun)
            os.close(begun)
            os.read(from_command, 1)
            os.write(writing, b"%d" % command)
            os.close(writing)
            ended = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
            os._exit(ended if ended >= 0 else 64 - ended)
        finally:
            os._exit(98)
    os.close(writing)
    target = os.read(reading, 20)
    os.close(reading)
    if number is not None and target:
        time.sleep(after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(target), number)
    status = _wait(child, int(target or 0))
    said = log.read_text("utf-8", errors="replace")
    log.unlink()
    status = 64 - status if 64 < status < 98 else status
    return Ended(status, said, time.monotonic() - began, sorted(_files(folder) - before))


def _be(words: list[Any], log: Path, begun: int) -> None:
    """Be the command; does not return. What is written to `begun` says that it hears signals."""
    status = 1
    try:
        opened = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(opened, 1)
        os.dup2(opened, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = ["tlora", *map(str, words)]
        end_at_once_when_asked()
        os.write(begun, b".")
        os.close(begun)
        status = main()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _wait(child: int, command: int) -> int:
    """Return the exit status; a command that doesn't end is killed, and its status is 97."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(command, signal.SIGKILL)
    os.waitpid(child, 0)
    return 97


def _files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir()}


# --- folders --------------------------------------------------------------------------------------


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """Yield a folder on a file system that nobody can write, root included."""
    with _file_system(folder, "64m"):
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[Path]:
    """Yield a folder on a disk without a byte left, with an empty one of ComfyUI's."""
    with _file_system(folder, "1m"):
        with_a_folder_of_nodes(folder / "out" / "ui")
        with (
            contextlib.suppress(OSError),
            (folder / "others").open("wb", buffering=0) as file,
        ):
            while file.write(bytes(4096)):
                pass
        yield folder / "out"


@contextlib.contextmanager
def _file_system(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        raise PermissionError("mounting a small file system needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def expected(kind: str, number: signal.Signals | None = None) -> tuple[int, ...]:
    """Return the statuses that are in order: a command may have ended before a signal came."""
    if number is not None:
        return (Status.DONE, 128 + number)
    refused = (Status.MISTAKE, Status.LATER)
    return {"full": (Status.NO_ROOM,), "read-only": refused, "alone": (Status.DONE,)}[kind]
