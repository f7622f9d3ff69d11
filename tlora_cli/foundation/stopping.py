"""Signals that ask the program to stop: Ctrl-C, SIGTERM and SIGHUP, in every command alike."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tlora_cli.foundation.errors import Status

HANGUP = getattr(signal, "SIGHUP", None)
"""The signal of a lost connection; Windows has none."""
SIGNALS = tuple(one for one in (signal.SIGINT, signal.SIGTERM, HANGUP) if one is not None)
AGAIN = 0.1
"""Seconds after which a signal comes again whose exception was lost."""

Handler = Callable[[int, Any], None]


class Stopped(KeyboardInterrupt):
    """A signal has asked to stop; it passes through all that lets Ctrl-C through.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def status_of_stop(stop: KeyboardInterrupt) -> Status:
    """Return the exit status after a signal: 128 and its number, as shells have it."""
    return Status(128 + getattr(stop, "number", signal.SIGINT))


@contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Have a function take the signals within; a thread other than the main one can't.

    As process 1 of a container a program is sent only the signals that it has handlers for. Where
    SIGHUP is ignored from the start, as by `nohup`, it stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [one for one in SIGNALS if one != HANGUP or signal.getsignal(one) != signal.SIG_IGN]
    before = {one: signal.signal(one, handler) for one in taken}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)


@contextmanager
def stoppable() -> Iterator[None]:
    """Have each of the signals raise `Stopped` within, as Ctrl-C raises KeyboardInterrupt."""
    report = sys.unraisablehook

    def lost(told: Any) -> None:
        # Python drops what is raised in a callback of its own, as while it imports or collects.
        if isinstance(told.exc_value, Stopped):
            number = told.exc_value.number
            signal.signal(number, stop)
            again = threading.Timer(AGAIN, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
        else:
            report(told)

    sys.unraisablehook = lost
    try:
        with handling(stop):
            yield
    finally:
        sys.unraisablehook = report


def stop(number: int, frame: Any) -> None:
    """Raise `Stopped`. A hang-up comes twice, from the shell and the system: once is enough."""
    if number == HANGUP:
        leave_lost_terminal()
        signal.signal(number, signal.SIG_IGN)
    raise Stopped(number)


def leave_lost_terminal() -> None:
    """Send to nowhere what would go to a terminal that is gone: each print there would fail."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)
