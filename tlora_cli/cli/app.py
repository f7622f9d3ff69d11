"""The `tlora` command: its commands, and what it says when something is wrong.

Exit status: 0 done; 2 a mistake the user can mend; 130 interrupted; 1 anything else.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import metadata
from typing import Annotated

import typer

from tlora_cli.cli import (
    analyze,
    compare,
    convert,
    doctor,
    evaluate,
    init,
    merge,
    publish,
    recipe,
    report,
    sample,
    toyworld,
    train,
    validate,
)
from tlora_cli.cli.choices import either
from tlora_cli.cli.quiet import plain_warnings
from tlora_cli.families import FAMILIES
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.packages import PRODUCT

app = typer.Typer(
    name=PRODUCT,
    help=f"T-LoRA: teach {either(one.title for one in FAMILIES.values())} a new thing from one "
    "photograph without overfitting.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# Adding a command is one line: app.command()(module.function).
app.command()(init.init)
app.command()(train.train)
app.command()(sample.sample)
app.command()(convert.convert)
app.command()(merge.merge)
app.command()(publish.publish)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(analyze.analyze)
app.command()(report.report)
app.command()(validate.validate)
app.command()(doctor.doctor)
app.add_typer(recipe.app)
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


def main() -> int:
    """Run the command line and return its exit status; nothing ends in a traceback."""
    plain_warnings()
    try:
        return _run()
    except UserError as error:
        return _fail(f"error: {error}", 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader went away, as `head` does. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("TLORA_DEBUG") == "1":
            traceback.print_exc()
        first_line = str(error).partition("\n")[0]
        return _fail(
            f"internal error: {type(error).__name__}: {first_line}; "
            "set TLORA_DEBUG=1 for the traceback",
            1,
        )


def _run() -> int:
    """Run typer, which ends by SystemExit, and return the status it asks for."""
    try:
        app(prog_name=PRODUCT)
    except SystemExit as end:
        if _was_interrupted(end):
            raise KeyboardInterrupt from end
        sys.stdout.flush()
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _was_interrupted(end: BaseException) -> bool:
    """Tell Ctrl-C, which typer turns into an exit, from a command's own exit."""
    cause: BaseException | None = end
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def _fail(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status
