"""The command `tlora train`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.cli.collection import uncollected
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.reading import load_recipe


def train(
    config: Annotated[Path | None, typer.Option(help="Recipe file (YAML).")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a value: --set train.steps=100"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Run folder; overrides output.dir.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder.")
    ] = False,
) -> None:
    """Train an adapter from a recipe.

    With --resume and --output, the recipe in the run folder is used unless --config is given.
    """
    if config is None:
        if not (resume and output):
            raise UserError(
                "no recipe was given",
                do="tlora train --config FILE, or --resume --output FOLDER to continue a run",
            )
        config = output / "recipe.yaml"
        if not config.is_file():
            raise UserError(
                "the folder holds no run to resume", where=str(output), do="check --output"
            )
    overrides = list(set_ or [])
    if output is not None:
        overrides.append(f"output.dir={json.dumps(str(output))}")
    recipe = load_recipe(config, overrides)

    hush_libraries()
    with uncollected():
        from tlora_cli.training.loop import train as run

    outcome = run(recipe, resume=resume)
    if outcome.adapter is None:
        folder = shlex.quote(recipe.output.dir)
        typer.echo(
            f"stopped after step {outcome.step} and saved; continue with:\n"
            f"  tlora train --resume --output {folder}",
            err=True,
        )
        raise typer.Exit(130)
    typer.echo(
        f"adapter: {outcome.adapter}\n"
        f'sample:  tlora sample --adapter {outcome.adapter} --prompt "a photo of a V* in the snow"'
    )
