"""Signals that ask the program to stop: Ctrl-C, SIGTERM and SIGHUP, in every command alike."""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tlora_cli.foundation.errors import Status
from tlora_cli.foundation.signals import HANGUP, Handler, keep_out, leave_lost_terminal, taken_by

AGAIN = 0.1
"""Seconds after which a signal comes again whose exception was lost."""


class Stopped(KeyboardInterrupt):
    """A signal has asked to stop; it passes through all that lets Ctrl-C through.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class _Asked:
    """The signal that asked last to stop.

    Attributes:
        number: of the signal.
        raised: the exception of it, while there is one.
        heard: whether the program ends because of it.
    """

    number: int | None = None
    raised: Callable[[], Stopped | None] = lambda: None
    heard: bool = False


_asked: _Asked | None = None
"""Within `stoppable`, what was asked for."""


def raised(number: int) -> Stopped:
    """Return what to raise for a signal; if it gets lost on its way, the signal comes again.

    Python drops what is raised in a callback of its own, as while it imports or collects, and
    libraries written in C take any exception for a sign of theirs.
    """
    stop = Stopped(number)
    if _asked is not None:
        _asked.number = number
        _asked.raised = weakref.ref(stop, lambda _: _send_again(number))
    return stop


def _send_again(number: int) -> None:
    asked = _asked

    def send() -> None:
        if asked is not None and asked is _asked and not asked.heard and asked.raised() is None:
            os.kill(os.getpid(), number)

    if asked is not None and not asked.heard:
        again = threading.Timer(AGAIN, send)
        again.daemon = True
        again.start()


def stop_behind(error: BaseException) -> KeyboardInterrupt | None:
    """Return the stop that an exception comes from, or None: it is one, or it has taken its place.

    After a signal any error is taken for its work: what failed is what the exception broke into,
    and a library may have kept nothing of it.
    """
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:  # they may lead back to the first
        if isinstance(cause, KeyboardInterrupt):
            return cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    finished = isinstance(error, SystemExit) and error.code in (0, None)
    number = _asked.number if _asked is not None else None
    return None if number is None or finished else Stopped(number)


def hear(stop: KeyboardInterrupt) -> Status:
    """Let a signal not come again, since the program ends now; return the exit status."""
    if _asked is not None:
        _asked.heard = True
    return status_of_stop(stop)


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
    let_in = keep_out()
    before = taken_by(handler)
    try:
        let_in()
        yield
    finally:
        let_in = keep_out()
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)
        let_in()


@contextmanager
def stoppable() -> Iterator[None]:
    """Have each of the signals raise `Stopped` within, as Ctrl-C raises KeyboardInterrupt."""
    global _asked
    outer, report = _asked, sys.unraisablehook

    def lost(told: Any) -> None:
        if not isinstance(told.exc_value, Stopped):  # which comes again
            report(told)

    _asked, sys.unraisablehook = outer or _Asked(), lost
    try:
        with handling(stop):
            yield
    finally:
        _asked, sys.unraisablehook = outer, report


def stop(number: int, frame: Any) -> None:
    """Raise `Stopped`, but not while the program says its last words because of another.

    A hang-up comes twice, from the shell and the system: once is enough.
    """
    if number == HANGUP:
        leave_lost_terminal()
        if _asked is not None and _asked.raised() is not None:
            return
    if _asked is not None and _asked.heard:
        return
    raise raised(number)
