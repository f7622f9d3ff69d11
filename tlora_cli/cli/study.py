"""`tlora study`: people choose blindly between the pictures of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.cli.command import Command, shared
from tlora_cli.cli.going_on import goes_on
from tlora_cli.cli.reporter import reporter
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import expanded

app = typer.Typer(
    name="study",
    help="Let people choose blindly between adapters' pictures, and report what they prefer.",
    no_args_is_help=True,
)
Folder = Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of the study.")]


def new(
    evaluations: Annotated[
        list[str],
        typer.Argument(
            metavar="[METHOD[/CONCEPT]=]FOLDER...",
            help="Folders of `tlora evaluate`; the first method is compared with the others.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="New folder for the study.")] = Path("study"),
    pairs: Annotated[
        int, typer.Option(min=1, help="Pairs that each rater is shown, at most.")
    ] = 60,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[CONCEPT=]FILE",
            help="Photograph of a concept, over the one the evaluation knows. Repeat for more.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of order and sides.")] = 0,
) -> None:
    """Make a study: pairs of pictures of the same prompt and noise, in a folder of their own."""
    from tlora_cli.study.design import make_study
    from tlora_cli.study.folders import read_folder

    photographs = dict(_reference(one) for one in reference or ())
    drawn = [read_folder(one, photographs) for one in evaluations]
    study = make_study(drawn, output, pairs, seed)
    typer.echo(
        f"{output}: {len(study.pairs)} pairs of {len(study.concepts)} "
        f"{'concept' if len(study.concepts) == 1 else 'concepts'}, "
        f"{study.methods[0].name} with {', '.join(one.name for one in study.methods[1:])}"
    )
    reporter.advise(f"next:  tlora study serve {output}")


@goes_on("every answer is kept; go on with:\n  {again}")
def serve(
    study: Folder,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this computer; 0 for any.")
    ] = 8765,
) -> None:
    """Let raters answer in a browser on this computer, until Ctrl-C."""
    from tlora_cli.study.design import read_study
    from tlora_cli.study.server import StudyServer

    with StudyServer(read_study(study), port) as server:
        typer.echo(f"open {server.address} in a browser on this computer; Ctrl-C ends it")
        server.serve_forever()


def report(study: Folder) -> None:
    """Write report.html and tables: shares with intervals, agreement, sides, careless raters."""
    from tlora_cli.study.design import read_study
    from tlora_cli.study.report import write_report

    written = write_report(read_study(study))
    files = [str(file) for file in written.files]
    reporter.result(
        "studied",
        [*written.verdict, *files],
        files=files,
        verdict=written.verdict,
        shares=written.shares,
        left_out=written.left_out,
    )


def _reference(given: str) -> tuple[str, Path]:
    concept, equals, file = given.partition("=")
    if not equals or expanded(given).exists():
        concept, file = "", given
    path = expanded(file)
    if not path.is_file():
        raise UserError("there is no such photograph", str(path), "check --reference")
    return concept, path


app.command(cls=Command)(shared(new))
app.command(cls=Command)(shared(serve))
app.command(cls=Command)(shared(report, prints_objects=True))
