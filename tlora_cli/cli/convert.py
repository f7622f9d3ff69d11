"""The command `tlora convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.errors import UserError

FAMILY_NAMES = ("sdxl", "flux")


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="Published T-LoRA checkpoint, or diffusers or kohya LoRA; file or folder."
        ),
    ],
    output: Annotated[Path, typer.Option(help="The new file (.safetensors).")],
    min_rank: Annotated[
        int | None, typer.Option(min=1, help="Least rank, for files that don't say.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Exponent of the rank schedule, for files that don't say.")
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="sdxl or flux; by default told from the layers.")
    ] = None,
    placeholder: Annotated[
        str | None, typer.Option(help="Word that stands for the concept, e.g. sks.")
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="What the concept is, e.g. dog.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model that it was trained on: Hub id, folder or file.")
    ] = None,
) -> None:
    """Write any adapter that tlora reads as a tlora file, which says its own rank schedule."""
    if family is not None and family not in FAMILY_NAMES:
        raise UserError(
            f"--family {family} is not known", do=f"use one of {', '.join(FAMILY_NAMES)}"
        )
    if output.suffix != ".safetensors":
        raise UserError("--output must end in .safetensors", str(output), "choose another name")
    if output.exists():
        raise UserError(
            "the output file exists already", str(output), "choose another name, or remove it"
        )

    from tlora_cli.conversion import convert_file

    given = {"placeholder": placeholder, "class_name": class_name, "base_model": base}
    written = convert_file(source, output, family, base, min_rank, alpha, given)
    typer.echo(f"wrote {output}: {written}")
