"""Run cases in processes that are watched: time, memory, code that runs, files that are written.

A case may end well or with a UserError. Anything else is a fault: another exception, an end by a
signal, more time or memory than allowed, another program started, a file written elsewhere.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlora_cli.foundation.errors import UserError

SECONDS = 10.0
"""Longest a case may compute."""
WAITING = 60.0
"""Longest it may take in all, on a busy computer: who waits for a pipe computes nothing."""
BYTES = 1_500_000_000
"""Most memory a case may hold beside the program itself, which is larger in a test suite."""
ADDRESSES = 6 * 2**30
"""A process is refused more address space than this beyond what it has: the computer lives on."""
PROGRAMS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn")
"""Audit events of starting another program."""
COMPILERS = ("g++", "clang++", "c++")
"""Compilers that torch asks for their version, whatever file is read."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

Case = Callable[[], None]
"""One try; it has a description in its docstring or is a partial of what has."""
Make = Callable[[int], tuple[str, Case]]
"""Number of a case -> what it is, and itself. The same number makes the same case."""


@dataclass
class Fault:
    """A case that ended as none may."""

    number: int
    what: str
    how: str


@dataclass
class Findings:
    """The outcome of many cases.

    Attributes:
        kind: what was tried.
        taken: cases that ended well.
        refused: cases that ended with a UserError.
        slowest: seconds of computing and description of the slowest case.
        largest: bytes and description of the case that held most.
        faults: what ended otherwise.
    """

    kind: str
    taken: int = 0
    refused: int = 0
    slowest: tuple[float, str] = (0.0, "")
    largest: tuple[int, str] = (0, "")
    faults: list[Fault] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """The number of cases."""
        return self.taken + self.refused + len(self.faults)

    def __str__(self) -> str:
        """Return the figures in a few lines."""
        lines = [
            f"{self.kind}: {self.tried} tried, {self.taken} taken, {self.refused} refused, "
            f"{len(self.faults)} faults",
            f"  slowest {self.slowest[0]:.2f} s ({self.slowest[1]})",
            f"  largest {self.largest[0] / 1e6:.0f} MB ({self.largest[1]})",
        ]
        lines += [f"  FAULT {one.number}: {one.what}\n{one.how}" for one in self.faults]
        return "\n".join(lines)


def try_all(kind: str, make: Make, numbers: Sequence[int], inside: Path) -> Findings:
    """Run cases one after another in a forked process; a new one where that one dies.

    Args:
        kind: what is tried.
        make: makes a case.
        numbers: which cases.
        inside: the only folder where files may be written.
    """
    found, waiting = Findings(kind), list(numbers)
    while waiting:
        ended, how = 0, ""
        for report in _in_process(make, waiting, inside):
            if "how" not in report:  # told before the case began
                how = report["what"]
                continue
            ended += 1
            _count(found, report)
        if ended < len(waiting):  # died in the midst of a case
            number = waiting[ended]
            found.faults.append(Fault(number, how, "  the process died: time, memory or a crash"))
            ended += 1
        waiting = waiting[ended:]
    return found


def _count(found: Findings, report: dict[str, Any]) -> None:
    what = f"{report['number']}: {report['what']}"
    found.slowest = max(found.slowest, (report["seconds"], what))
    found.largest = max(found.largest, (report["bytes"], what))
    if report["how"] == "taken":
        found.taken += 1
    elif report["how"] == "refused":
        found.refused += 1
    else:
        found.faults.append(Fault(report["number"], report["what"], report["how"]))


def _in_process(make: Make, numbers: Sequence[int], inside: Path) -> Iterator[dict[str, Any]]:
    """Yield two reports of each case: what it is, then how it ended."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = 1
        try:
            with os.fdopen(writer, "w") as reports:
                _work(make, numbers, inside, reports)
            status = 0
        except BaseException:  # of the making of a case
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as reports:
        for line in reports:
            yield json.loads(line)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status != 1, "a case could not be made; see above"


def _work(make: Make, numbers: Sequence[int], inside: Path, reports: Any) -> None:
    for number in (signal.SIGALRM, signal.SIGPROF):  # they end the process even inside C code
        signal.signal(number, signal.SIG_DFL)
    os.chdir(inside)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESSES, used + ADDRESSES))
    watch = _Watch(inside.resolve())
    sys.addaudithook(watch)
    # What libraries write on their own: caches, compiled files.
    sys.dont_write_bytecode = True

    def tell(**values: Any) -> None:
        reports.write(json.dumps(values) + "\n")
        reports.flush()

    for number in numbers:
        what, case = make(number)
        tell(number=number, what=what)
        _forget_peak()
        program = _peak()
        began = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WAITING)
        watch.on = True
        how = _outcome(case)
        watch.on = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        seconds = time.process_time() - began
        peak = _peak() - program
        if watch.seen:
            how = "  it did what no file may do: " + "; ".join(watch.seen)
            watch.seen.clear()
        elif peak > BYTES:
            how = f"  it held {peak / 1e6:.0f} MB"
        tell(number=number, what=what, how=how, seconds=seconds, bytes=peak)


def _outcome(case: Case) -> str:
    """Return `taken`, `refused`, or the traceback of what must not be."""
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(said):
                case()
        return "taken"
    except UserError as error:
        text = str(error).encode()  # what can't be printed is a fault, too
        return "refused" if error.what else f"  a UserError without words: {text!r}"
    except BaseException:
        return traceback.format_exc(limit=-8)


class _Watch:
    """An audit hook: notes programs that are started and files that are written elsewhere."""

    def __init__(self, inside: Path) -> None:
        self.on = False
        self.seen: list[str] = []
        self._inside = f"{inside}/"

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "subprocess.Popen" and arguments[0] in COMPILERS:
            return
        if event in PROGRAMS or event == "socket.connect":
            self.seen.append(f"{event} {arguments!r}"[:200])
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
            self._written(arguments[0])
        elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink"):
            self._written(arguments[1] if event in ("os.rename", "os.symlink") else arguments[0])

    def _written(self, path: Any) -> None:
        if isinstance(path, int):
            return
        where = os.path.realpath(os.fsdecode(path))
        if not f"{where}/".startswith(self._inside) and not where.startswith(("/dev/", "/proc/")):
            self.seen.append(f"wrote {where}")


def _forget_peak() -> None:
    """Let the kernel count the peak of resident memory from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
