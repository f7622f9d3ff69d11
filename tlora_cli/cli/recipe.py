"""`tlora recipe`: look at a recipe before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tlora_cli.cli.command import Command, shared
from tlora_cli.cli.reporter import reporter
from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.recipe.mistakes import Mistake, dotted, recipe_error
from tlora_cli.recipe.reading import dump_recipe, examine_recipe, load_recipe, recipe_schema

app = typer.Typer(name="recipe", help="Look at recipes.", no_args_is_help=True)

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a value of the recipe, e.g. train.steps=100."
    ),
]
"""The `--set` option, the same in every command that reads a recipe."""


def schema() -> None:
    """Print the JSON schema: every key, its type, its default and what it does."""
    typer.echo(json.dumps(recipe_schema(), indent=2, ensure_ascii=False))


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recipe.")],
    overrides: Overrides = None,
) -> None:
    """Print the recipe as it would run, with every default filled in."""
    typer.echo(dump_recipe(load_recipe(file, overrides or ())), nl=False)


def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="The recipes.")],
    overrides: Overrides = None,
) -> None:
    """Say whether recipes are right, and all that is wrong with those that aren't."""
    wrong: list[Status] = []
    for file in files:
        try:
            mistakes = examine_recipe(file, overrides or ())[1]
        except UserError as error:
            reporter.error(error)
            wrong.append(error.kind)
            continue
        if reporter.as_json:
            told = [_mistake(one) for one in mistakes]
            reporter.result("recipe", file=str(file), ok=not mistakes, mistakes=told)
        elif mistakes:
            reporter.error(recipe_error(mistakes, str(file)))
        else:
            reporter.inform(f"{file}: ok")
        if mistakes:
            wrong.append(Status.MISTAKE)
    if wrong:
        raise typer.Exit(min(wrong))


def _mistake(one: Mistake) -> dict[str, Any]:
    key, given = dotted(one.path) if one.path else "", one.override or None
    return {"key": key, "line": one.line, "set": given, "text": one.text}


app.command(cls=Command)(shared(schema))
app.command(cls=Command)(shared(show))
app.command(cls=Command)(shared(check, prints_objects=True))
