"""Who takes the signals that ask to stop. It imports little, for it is a program's first import."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

HANGUP = getattr(signal, "SIGHUP", None)
"""The signal of a lost connection; Windows has none."""
SIGNALS = tuple(one for one in (signal.SIGINT, signal.SIGTERM, HANGUP) if one is not None)
Handler = Callable[[int, Any], None]


def taken_by(handler: Handler) -> dict[signal.Signals, Any]:
    """Have a function take the signals, and return what took them before."""
    taken = [one for one in SIGNALS if one != HANGUP or signal.getsignal(one) != signal.SIG_IGN]
    return {one: signal.signal(one, handler) for one in taken}


def keep_out() -> Callable[[], None]:
    """Let signals wait, so that none falls between two handlers; return what lets them in."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return lambda: None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def let_in() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return let_in


def end_at_once_when_asked() -> None:
    """Have the signals end this process while nothing is begun, and when all is done.

    A program calls it first: Python's own handler of Ctrl-C would show a traceback of what is
    imported, or of what is taken down, and process 1 would not hear the others.
    """

    def end(number: int, frame: Any) -> None:
        if number == HANGUP:
            leave_lost_terminal()
        name = signal.Signals(number).name
        with suppress(OSError):
            os.write(2, f"stopped by {name}; nothing was left half done; run it again\n".encode())
        os._exit(128 + number)

    taken_by(end)


def leave_lost_terminal() -> None:
    """Send to nowhere what would go to a terminal that is gone: each print there would fail."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)
