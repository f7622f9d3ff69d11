"""`tlora recipe`: look at a recipe before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.recipe.reading import dump_recipe, load_recipe, recipe_schema

app = typer.Typer(name="recipe", help="Look at recipes.", no_args_is_help=True)

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a value of the recipe, e.g. train.steps=100."
    ),
]
"""The `--set` option, the same in every command that reads a recipe."""


@app.command()
def schema() -> None:
    """Print the JSON schema: every key, its type, its default and what it does."""
    typer.echo(json.dumps(recipe_schema(), indent=2, ensure_ascii=False))


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recipe.")],
    overrides: Overrides = None,
) -> None:
    """Print the recipe as it would run, with every default filled in."""
    typer.echo(dump_recipe(load_recipe(file, overrides or ())), nl=False)


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="The recipes.")],
) -> None:
    """Say whether recipes are right, and all that is wrong with those that aren't."""
    wrong: list[Status] = []
    for file in files:
        try:
            load_recipe(file)
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            wrong.append(error.kind)
        else:
            typer.echo(f"{file}: ok")
    if wrong:
        raise typer.Exit(min(wrong))
