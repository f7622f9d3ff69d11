"""The memory of a process while it runs, and what it said at the time; read from Linux's /proc."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

INTERVAL = 0.05
"""Seconds between two looks at a process."""


@dataclass
class Watched:
    """A process that has ended.

    Attributes:
        code: exit status.
        seconds: it took.
        peak: most bytes it had, as the kernel counts (VmHWM); files it has mapped are in it.
        own: most bytes of its own seen at one time (RssAnon); what is read again from files is not.
        stages: line that it said -> the same two until it said the next one.
        said: all lines.
    """

    code: int = 0
    seconds: float = 0.0
    peak: int = 0
    own: int = 0
    stages: dict[str, tuple[int, int]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def watch(command: Sequence[str], start: str = "start") -> Watched:
    """Run a command, look at its memory all the time, and return what was seen.

    Args:
        command: program and its words; it writes lines of text.
        start: name of the stage before its first line.
    """
    found = Watched()
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            found.said.append(line.rstrip())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        while process.poll() is None:
            _look(process.pid, found, start)
            time.sleep(INTERVAL)
    except BaseException:
        process.kill()
        raise
    finally:
        reader.join()
    found.code, found.seconds = process.wait(), time.monotonic() - began
    return found


def _look(pid: int, found: Watched, start: str) -> None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    except OSError:  # it has just ended
        return
    values = dict(line.split(":", 1) for line in lines)
    if "VmHWM" not in values:  # ended, but not waited for
        return
    peak, whole, own = (
        int(values[name].split()[0]) * 1024 for name in ("VmHWM", "VmRSS", "RssAnon")
    )
    stage = found.said[-1] if found.said else start
    most = found.stages.get(stage, (0, 0))
    found.stages[stage] = max(most[0], whole), max(most[1], own)
    found.peak, found.own = max(found.peak, peak), max(found.own, own)
