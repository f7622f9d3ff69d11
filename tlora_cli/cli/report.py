"""The command `tlora report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="The output.dir of a run.")],
) -> None:
    """Make a run's report again: one page, report.html, from what the run folder holds.

    Training writes it by itself; this is for runs that were killed, and for old ones.
    """
    from tlora_cli.training.report.live import write_report

    typer.echo(str(write_report(run)))
