"""The command `tlora validate`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.cli.grid_check import is_grid, look_at_grid
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.cli.recipe import Overrides
from tlora_cli.cli.reporter import reporter
from tlora_cli.cli.told_findings import tell_findings
from tlora_cli.foundation.errors import UserError
from tlora_cli.tools.preflight.findings import Finding, count, status_of, summary


def validate(
    file: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, or a grid.")],
    overrides: Overrides = None,
    card: Annotated[
        str | None,
        typer.Option(help="Plan for a card of this size, e.g. 24gb, not for the one that is here."),
    ] = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Try it, too: train two steps, preview, save and resume, in a folder that is "
            "removed. Loads the base model, from the Hub if need be.",
        ),
    ] = False,
) -> None:
    """Look at all that could go wrong in a run, before it starts.

    Recipe, pictures, masks, base model, packages, device, output folder, disk, and memory part by
    part. `tlora recipe check` looks at the recipe alone, at once. Of the grid of a comparison:
    runs, hours and disk, too, and what the paper leaves unsaid whose table it runs again.
    """
    hush_libraries()
    given = "".join(f" --set {shlex.quote(one)}" for one in overrides or ())
    if is_grid(file):
        if deep:
            raise UserError("--deep tries one recipe, and this is a grid", do="drop --deep")
        found = []
        for finding in look_at_grid(file, overrides or (), _size(card)):
            found.append(finding)
            tell_findings([finding])
        _end(found, f"tlora compare {shlex.quote(str(file))}{given}")
        return
    from tlora_cli.tools.preflight.trial_run import try_recipe
    from tlora_cli.tools.preflight.validate import validate_recipe

    if deep and card:
        raise UserError("--deep tries this machine's card", do="drop --card or --deep")
    recipe, found = validate_recipe(file, overrides or (), _size(card))
    tell_findings(found)
    if deep and recipe is not None and not count(found, "problem"):
        tried = list(try_recipe(recipe))
        found += tried
        tell_findings(tried)
    _end(found, f"tlora train --config {shlex.quote(str(file))}{given}")


def _size(card: str | None) -> int | None:
    from tlora_cli.tools.preflight.gpus import card_size

    return card_size(card) if card else None


def _end(found: Sequence[Finding], command: str) -> None:
    """Count what was found, and name the next command, unless there is a problem."""
    status = status_of(found)
    if reporter.as_json:
        reporter.result(
            "summary",
            problems=count(found, "problem"),
            warnings=count(found, "warning"),
            next=None if status else command,
        )
    else:
        reporter.inform(summary(found))
    if status:
        raise typer.Exit(status)
    reporter.advise(f"next: {command}")
