"""The process that computes for the page: it plans, finds masks, draws and exports.

It is a process of its own, so that the page stays quick, and so that a card's memory is free for
training once the process has ended.
"""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from tlora_cli.foundation.errors import Status, UserError, no_room
from tlora_cli.foundation.plugins import resolve

TASKS = {
    "machine": "tlora_cli.studio.planning:describe_machine",
    "mask": "tlora_cli.studio.masks:find_mask",
    "plan": "tlora_cli.studio.planning:plan",
    "draw": "tlora_cli.studio.drawing:draw_pictures",
    "export": "tlora_cli.studio.exports:export",
}
"""Task -> the function of (wishes, notify) that does it. Each returns plain data."""

Notify = Callable[[str], None]


def main(connection: Connection) -> None:
    """Do the tasks that come, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this one
    warnings.showwarning = _told(connection)
    for library in ("bitsandbytes", "accelerate"):
        logging.getLogger(library).setLevel(logging.ERROR)
    while True:
        try:
            task, wishes = connection.recv()
        except EOFError:
            return
        connection.send(answer_of(task, wishes, lambda line: connection.send(("said", line))))


def answer_of(task: str, wishes: dict[str, Any], notify: Notify) -> tuple[str, Any]:
    """Do a task; return `done` and what it returned, or `failed` and the UserError."""
    try:
        return "done", resolve(TASKS[task])(wishes, notify)
    except UserError as error:
        return "failed", error
    except Exception as error:
        return "failed", no_room(error) or _fault(error)


def _told(connection: Connection) -> Callable[..., None]:
    def show(message: Warning | str, category: type[Warning], *place: object) -> None:
        if issubclass(category, UserWarning):
            connection.send(("said", f"warning: {message}"))

    return show


def _fault(error: Exception) -> UserError:
    first = str(error).partition("\n")[0]
    return UserError(
        f"internal error: {type(error).__name__}: {first}",
        do="try the same at the command line with TLORA_DEBUG=1, which shows the traceback",
        kind=Status.FAULT,
    )
