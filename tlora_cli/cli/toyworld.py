"""`tlora toyworld`: the built-in world, its concepts, its models and their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.cli.command import Command, shared
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.foundation.errors import UserError, known_names
from tlora_cli.toyworld.bundle import BUNDLE

app = typer.Typer(
    name="toyworld", help="The built-in world: concepts, models, scores.", no_args_is_help=True
)

Output = Annotated[Path, typer.Option(help="New folder for the result.")]


def list_all(
    class_of: Annotated[
        str | None, typer.Option(metavar="CONCEPT", help="Print only the class of a concept.")
    ] = None,
) -> None:
    """List the built-in bases and the concepts with their private attributes."""
    from tlora_cli.toyworld.concepts import CONCEPTS, find_concept

    if class_of is not None:
        typer.echo(find_concept(class_of).class_name)
        return
    typer.echo("bases")
    for base, family in BUNDLE.bases.items():
        typer.echo(f"  {base:10} family {family}; in a recipe: base: {base}")
    typer.echo("concepts; in a recipe: images: toy:NAME/1")
    for one in CONCEPTS.values():
        private = f"private: {one.marking}, {one.feature}"
        typer.echo(f"  {one.name:10} {f'{one.color} {one.class_name}':16} {private}")


def draw(
    concept: Annotated[
        str | None, typer.Option(help="Its pictures and masks; default: random scenes.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Random scenes to draw.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random scenes.")] = 0,
    output: Output = Path("drawings"),
) -> None:
    """Write drawings of the world: a concept with its masks, or random scenes with captions."""
    from tlora_cli.toyworld.export import write_concept, write_scenes

    files = write_scenes(output, count, seed) if concept is None else write_concept(output, concept)
    typer.echo(f"wrote {len(files)} files to {output}")


def gate(
    base: Annotated[str, typer.Option(help="The base, e.g. toy-sdxl.")] = "toy-sdxl",
    count: Annotated[int, typer.Option(min=1, help="Pictures of each kind.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the prompts.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="PNG to write: pictures with the judge's readings.")
    ] = None,
) -> None:
    """Measure TS* of a base on seen and on held-out combinations, with 95% intervals."""
    if base not in BUNDLE.bases:
        raise UserError(
            f"there is no built-in base {base!r}",
            where="--base",
            do=known_names(base, BUNDLE.bases),
        )
    hush_libraries()
    from tlora_cli.foundation.pictures import save_png
    from tlora_cli.toyworld.base_accuracy import measure

    if sheet is not None and sheet.exists():
        raise UserError(
            f"{sheet} exists already and is left as it is", where="--sheet", do="name a new file"
        )
    result = measure(base, count, seed)
    if sheet is not None:
        save_png(result.sheet(), sheet)
    typer.echo(json.dumps(result.as_dict(), indent=2) if as_json else str(result))


def score(
    adapter: Annotated[
        list[str],
        typer.Option(
            help="Adapter file, or run folder, whose checkpoints are shown, too; or NAME=FILE. "
            "Repeat to compare."
        ),
    ],
    concept: Annotated[str, typer.Option(help="The concept it was trained on.")],
    picture: Annotated[
        int, typer.Option(min=1, help="Number of the picture it was trained on.")
    ] = 1,
    count: Annotated[int, typer.Option(min=1, help="Pictures in other contexts.")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="Seed of prompts and pictures.")] = 0,
    beside: Annotated[
        Path | None, typer.Option(help="Output of an earlier score, to show beside these.")
    ] = None,
    output: Output = Path("scores"),
) -> None:
    """Measure S*, TS*, ID*, leak and copy of adapters on the same prompts and seeds.

    Leaves scores.json and a page, index.html, with the pictures side by side.
    """
    hush_libraries()
    from tlora_cli.toyworld.report import score_adapters

    page, lines = score_adapters(adapter, concept, picture, count, seed, output, beside)
    for line in lines:
        typer.echo(line)
    typer.echo(f"page: {page}")


app.command("list", cls=Command)(shared(list_all))
app.command(cls=Command)(shared(draw))
app.command(cls=Command)(shared(gate))
app.command(cls=Command)(shared(score))
