"""The commands of `tlora`, put together."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from tlora_cli.cli import (
    analyze,
    caption,
    comfyui,
    compare,
    convert,
    doctor,
    evaluate,
    init,
    mask,
    merge,
    publish,
    recipe,
    report,
    sample,
    sheet,
    studio,
    study,
    toyworld,
    train,
    validate,
)
from tlora_cli.cli.choices import either
from tlora_cli.cli.once import Once
from tlora_cli.families import FAMILIES
from tlora_cli.foundation.packages import PRODUCT

app = typer.Typer(
    name=PRODUCT,
    help=f"T-LoRA: teach {either(one.title for one in FAMILIES.values())} a new thing from one "
    "photograph without overfitting.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# Adding a command is one line: app.command(cls=Once)(module.function).
app.command(cls=Once)(init.init)
app.command(cls=Once)(mask.mask)
app.command(cls=Once)(caption.caption)
app.command(cls=Once)(train.train)
app.command(cls=Once)(sample.sample)
app.command(cls=Once)(sheet.sheet)
app.command(cls=Once)(convert.convert)
app.command(cls=Once)(comfyui.comfyui)
app.command(cls=Once)(merge.merge)
app.command(cls=Once)(publish.publish)
app.command(cls=Once)(evaluate.evaluate)
app.command(cls=Once)(compare.compare)
app.command(cls=Once)(analyze.analyze)
app.command(cls=Once)(report.report)
app.command(cls=Once)(studio.studio)
app.command(cls=Once)(validate.validate)
app.command(cls=Once)(doctor.doctor)
app.add_typer(recipe.app)
app.add_typer(study.app)
app.add_typer(toyworld.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            version = metadata.version(PRODUCT)
        except metadata.PackageNotFoundError:
            version = "(run from source, not installed)"
        typer.echo(f"tlora {version}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of `tlora` itself; typer reads the help text from the app."""
