"""The command `tlora doctor`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.tools.preflight.findings import as_data, lines, status_of, summary


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Look at this machine: driver, torch, libraries, Hub, disk; each with its remedy.

    The exit status is 0 unless something makes training impossible; then it says what kind.
    """
    hush_libraries()
    from tlora_cli.tools.preflight.doctor import examine_machine

    found = examine_machine()
    if as_json:
        typer.echo(json.dumps(as_data(found), indent=2, ensure_ascii=False))
    else:
        for line in lines(found):
            typer.echo(line)
        typer.echo(summary(found))
    if status := status_of(found):
        raise typer.Exit(status)
