"""The commands of `tlora`, put together."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from tlora_cli.cli import (
    analyze,
    batch,
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
from tlora_cli.cli.command import Command, shared
from tlora_cli.families import FAMILIES
from tlora_cli.foundation.packages import PRODUCT

app = typer.Typer(
    name=PRODUCT,
    help=f"T-LoRA: teach {either(one.title for one in FAMILIES.values())} a new thing from one "
    "photograph without overfitting.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# Adding a command is one line; `prints_objects` gives it `--json`, with its events in `events.py`.
app.command(cls=Command)(shared(init.init, prints_objects=True))
app.command(cls=Command)(shared(mask.mask, prints_objects=True))
app.command(cls=Command)(shared(caption.caption))
app.command(cls=Command)(shared(train.train, prints_objects=True))
app.command(cls=Command)(shared(sample.sample, prints_objects=True))
app.command(cls=Command)(shared(sheet.sheet))
app.command(cls=Command)(shared(convert.convert, prints_objects=True))
app.command(cls=Command)(shared(comfyui.comfyui))
app.command(cls=Command)(shared(merge.merge, prints_objects=True))
app.command(cls=Command)(shared(publish.publish, prints_objects=True))
app.command(cls=Command)(shared(evaluate.evaluate, prints_objects=True))
app.command(cls=Command)(shared(batch.batch, prints_objects=True))
app.command(cls=Command)(shared(compare.compare, prints_objects=True))
app.command(cls=Command)(shared(analyze.analyze))
app.command(cls=Command)(shared(report.report))
app.command(cls=Command)(shared(studio.studio))
app.command(cls=Command)(shared(validate.validate, prints_objects=True))
app.command(cls=Command)(shared(doctor.doctor))
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
