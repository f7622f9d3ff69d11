"""The command `tlora analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.foundation.errors import UserError


def analyze(
    adapter: Annotated[
        list[str], typer.Option(help="Adapter file, or NAME=FILE. Repeat to compare.")
    ],
    output: Annotated[Path, typer.Option(help="New folder for tables and plots.")] = Path(
        "analysis"
    ),
) -> None:
    """Show spectra and effective ranks of adapters, by kind of layer and depth.

    Leaves ranks.csv, spectra.json, and plots as PNG and SVG: spectra, ranks by depth, and the
    active rank against the timestep. No base model is needed.
    """
    from tlora_cli.tools.analyze.report import write_analysis
    from tlora_cli.tools.analyze.spectra_of_file import analyze as analyze_file
    from tlora_cli.tools.analyze.spectra_of_file import summary

    named = [_named(one) for one in adapter]
    if len({name for name, _ in named}) < len(named):
        raise UserError(
            "two adapters have the same name",
            where="--adapter",
            do="name them: --adapter NAME=FILE",
        )
    if output.exists():
        raise UserError(
            f"{output} exists already and is left as it is",
            where="--output",
            do="name a new folder, or remove this one",
        )
    found = [analyze_file(path, name) for name, path in named]
    for path in write_analysis(found, output):
        typer.echo(str(path))
    for line in summary(found):
        typer.echo(line)


def _named(given: str) -> tuple[str, Path]:
    name, equals, file = given.partition("=")
    if equals and not Path(given).exists():
        return name, Path(file)
    path = Path(given)
    return (path.parent.name if path.stem == "adapter" else path.stem) or "adapter", path
