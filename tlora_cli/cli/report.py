"""The command `tlora report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.cli.opening import open_page


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="The output.dir of a run.")],
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Make a run's report again: one page, report.html, from what the run folder holds.

    Training writes it by itself; this is for runs that were killed, and for old ones.
    """
    from tlora_cli.training.report.live import write_report

    page = write_report(run)
    typer.echo(str(page))
    if open_:
        open_page(page)
