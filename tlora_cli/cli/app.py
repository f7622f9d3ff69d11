"""The `tlora` command, and what it says when something is wrong.

The exit statuses are those of `Status`, in docs/service.md.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from tlora_cli.cli.going_on import told_of_stop
from tlora_cli.cli.quiet import calm_threads, in_utf8
from tlora_cli.cli.reporter import begin, reporter, warnings_reported
from tlora_cli.foundation.errors import Status, UserError, no_room
from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.foundation.stopping import hear, stop_behind, stoppable


def main() -> int:
    """Run the command line and return its exit status; nothing ends in a traceback."""
    return _end_of(_heard)  # of a signal that comes where the inner one begins or ends, too


def _heard() -> int:
    in_utf8()
    begin()
    with stoppable():
        return _end_of(_told_of_all)


def _told_of_all() -> int:
    with warnings_reported(), calm_threads():
        status = _end_of(_run)
        return _end_of(lambda: reporter.end(status))


def _end_of(run: Callable[[], int]) -> int:
    try:
        return run()
    except (KeyboardInterrupt, Exception) as error:
        if (stop := stop_behind(error)) is None:
            return _told(error)
        status = hear(stop)
        reporter.stopped(*told_of_stop(stop))
        return status


def _told(error: BaseException) -> int:
    """Say what is wrong, and return the exit status."""
    if isinstance(error, UserError):
        return _fail(error)
    if isinstance(error, BrokenPipeError):
        # The reader went away, as `head` does. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Status.FAULT
    if (short := no_room(error)) is not None:
        return _fail(short)
    if os.environ.get("TLORA_DEBUG") == "1":
        traceback.print_exception(error)
    first_line = str(error).partition("\n")[0]
    told = (
        f"internal error: {type(error).__name__}: {first_line}; set TLORA_DEBUG=1 for the traceback"
    )
    what, _, do = told.rpartition("; ")
    return _fail(UserError(what, do=do, kind=Status.FAULT), told)


def _run() -> int:
    """Run typer, which ends by SystemExit, and return the status it asks for."""
    # Only here: the commands ask the registries for names, and a package that adds some may fail.
    from tlora_cli.cli.commands import app

    try:
        app(prog_name=PRODUCT)
    except SystemExit as end:
        # Ctrl-C and signals, which typer turns into an exit.
        if (stop := stop_behind(end)) is not None:
            raise stop from end
        sys.stdout.flush()
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _fail(error: UserError, text: str = "") -> int:
    reporter.error(error, text)
    return error.kind
