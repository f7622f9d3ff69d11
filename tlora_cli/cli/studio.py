"""The command `tlora studio`."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

from tlora_cli.cli.going_on import goes_on
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.foundation.errors import Status, UserError

PACKAGES = ("starlette", "uvicorn")
PORT = 7861


@goes_on("the studio is closed; runs that have begun go on. Again: tlora studio")
def studio(
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but the default is open to others.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 takes any that is free.")
    ] = PORT,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Open a page on which all of this is done by hand: photo, mask, training, drawing, export.

    It works in the current folder, with the same recipes and run folders as the other commands.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"the studio needs packages that are not installed: {', '.join(missing)}",
            do="pip install 'tlora[studio]'",
            kind=Status.MISSING,
        )
    hush_libraries()
    from tlora_cli.studio.server import serve

    serve(host, port, open_, typer.echo)
