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
from tlora_cli.foundation.stopping import status_of_stop, stoppable


def main() -> int:
    """Run the command line and return its exit status; nothing ends in a traceback."""
    in_utf8()
    begin()
    with warnings_reported(), calm_threads(), stoppable():
        status = _end_of(_run)
        return _end_of(lambda: reporter.end(status))


def _end_of(run: Callable[[], int]) -> int:
    try:
        return run()
    except UserError as error:
        return _fail(error)
    except KeyboardInterrupt as stop:
        reporter.stopped(*told_of_stop(stop))
        return status_of_stop(stop)
    except BrokenPipeError:
        # The reader went away, as `head` does. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Status.FAULT
    except Exception as error:
        if (behind := _stop_behind(error)) is not None:  # which a library has taken for its own
            reporter.stopped(*told_of_stop(behind))
            return status_of_stop(behind)
        if (short := no_room(error)) is not None:
            return _fail(short)
        if os.environ.get("TLORA_DEBUG") == "1":
            traceback.print_exc()
        first_line = str(error).partition("\n")[0]
        told = (
            f"internal error: {type(error).__name__}: {first_line}; "
            "set TLORA_DEBUG=1 for the traceback"
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
        if (stop := _stop_behind(end)) is not None:
            raise stop from end
        sys.stdout.flush()
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _stop_behind(end: BaseException) -> KeyboardInterrupt | None:
    """Tell Ctrl-C and signals, which typer turns into an exit, from a command's own exit."""
    cause: BaseException | None = end
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause


def _fail(error: UserError, text: str = "") -> int:
    reporter.error(error, text)
    return error.kind
