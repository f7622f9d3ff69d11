"""The studio's server: an address, a token, and one studio in a folder."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from tlora_cli.foundation.errors import Status, UserError, system_reason
from tlora_cli.foundation.files import locked, remove_leftovers, require_free
from tlora_cli.studio.app import make_app
from tlora_cli.studio.drafts import STUDIO
from tlora_cli.studio.jobs import Jobs
from tlora_cli.studio.security import Gate
from tlora_cli.studio.works import Works

GRACE = 2
"""Seconds that requests get to end when the studio is closed."""


def serve(host: str, port: int, open_: bool, notify: Callable[[str], None]) -> None:
    """Serve the studio of the current folder until it is stopped.

    Args:
        host: to listen on.
        port: likewise; 0 for any that is free.
        open_: whether to open the page in the browser of this machine.
        notify: told the address.

    Raises:
        UserError: if the address can't be had, or a studio is open in this folder.
    """
    listening = listen(host, port)
    with _alone(), listening:
        gate = Gate(host, listening.getsockname()[1], secrets.token_urlsafe(24))
        jobs = Jobs()
        works = Works(jobs)
        works.look_at_machine()
        notify(f"studio: {gate.address}")
        if not gate.is_local:
            notify(
                "warning: others can reach this address, and the connection is not encrypted; "
                "whoever has the token can use this machine. Safer: leave --host out, and use "
                f"ssh -L {gate.port}:127.0.0.1:{gate.port}"
            )
        notify("Ctrl-C closes the studio; a run that has begun goes on")
        if open_:
            webbrowser.open(gate.address)
        config = uvicorn.Config(
            make_app(works, gate),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            http="h11",
            loop="asyncio",
            timeout_graceful_shutdown=GRACE,
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            jobs.stop()


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the studio's folder, so that no second one begins runs there."""
    try:
        require_free(STUDIO)
    except UserError as error:
        raise UserError(
            "a studio is open in this folder already",
            where=str(STUDIO.absolute()),
            do="use its page, or close it",
            kind=Status.LATER,
        ) from error
    with locked(STUDIO):
        remove_leftovers(STUDIO)
        yield


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises:
        UserError: if the address can't be had.
    """
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(kind)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # who opens the address at once waits until it is served
    except (OSError, OverflowError) as error:
        listening.close()
        reason = system_reason(error) if isinstance(error, OSError) else str(error)
        raise UserError(
            f"the studio can't listen on {host}, port {port}: {reason}",
            where="--port" if isinstance(error, OSError) and error.errno else "--host",
            do="choose another --port, or 0 for any that is free",
        ) from error
    return listening
