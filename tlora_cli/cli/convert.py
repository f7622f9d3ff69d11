"""The command `tlora convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.errors import UserError, known_names

FAMILY_NAMES = ("sdxl", "flux")
TARGET_NAMES = ("tlora", "kohya", "comfyui")
"""Of `exports.TARGETS`, which needs torch."""


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="Published T-LoRA checkpoint, or diffusers or kohya LoRA; file or folder."
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="The new file (.safetensors); for comfyui, a folder.")
    ],
    to: Annotated[
        str, typer.Option(help="tlora (which diffusers loads, too), kohya or comfyui.")
    ] = "tlora",
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
    """Write any adapter that tlora reads in another format.

    tlora: one file that says its own rank schedule; diffusers loads it without. kohya: a plain LoRA
    for ComfyUI, A1111 and others. comfyui: the ranks as LoRAs with a workflow that keeps the
    schedule.
    """
    if family is not None and family not in FAMILY_NAMES:
        raise UserError(
            f"--family {family} is not known", do=f"use one of {', '.join(FAMILY_NAMES)}"
        )
    if to not in TARGET_NAMES:
        raise UserError(f"--to {to} is not known", do=known_names(to, TARGET_NAMES))
    if to != "comfyui" and output.suffix != ".safetensors":
        raise UserError("--output must end in .safetensors", str(output), "choose another name")
    if to == "comfyui" and output.suffix:
        raise UserError(
            "--output must be a folder for comfyui", str(output), "leave the suffix out"
        )
    if output.exists():
        kind = "folder" if output.is_dir() else "file"
        raise UserError(
            f"the output {kind} exists already", str(output), "choose another name, or remove it"
        )

    from tlora_cli.conversion import convert_file

    given = {"placeholder": placeholder, "class_name": class_name, "base_model": base}
    written, notes = convert_file(source, output, family, base, min_rank, alpha, given, to)
    typer.echo(f"wrote {output}: {written}")
    for note in notes:
        typer.echo(f"  {note}")
