"""Words on going on, which a command says when a signal has stopped it."""

from __future__ import annotations

import functools
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.foundation.stopping import stop_behind

Command = Callable[..., None]


def same_command() -> str:
    """Return the command line of this process, to be run again."""
    return shlex.join([PRODUCT, *sys.argv[1:]])


@contextmanager
def going_on(how: Callable[[], str]) -> Iterator[None]:
    """Add to a stop within the block how to go on after it; the innermost block knows best."""
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        if (stop := stop_behind(error)) is None:
            raise
        if not getattr(stop, "__notes__", None):
            stop.add_note(how())
        raise stop from None


def goes_on(how: str) -> Callable[[Command], Command]:
    """Mark a command with how to go on after a stop; {output} is its option of that name."""

    def marked(command: Command) -> Command:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            with going_on(lambda: how.format(**given, again=same_command())):
                command(**given)

        return run

    return marked


def told_of_stop(stop: KeyboardInterrupt) -> tuple[str, str]:
    """Return the name of the signal that stopped a command, and how to go on."""
    number = getattr(stop, "number", signal.SIGINT)
    notes = getattr(stop, "__notes__", None)
    how = notes[0] if notes else f"nothing was left half done; again:\n  {same_command()}"
    return signal.Signals(number).name, how
