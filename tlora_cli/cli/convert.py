"""The command `tlora convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.cli.choices import check_known, check_name, completing, either
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.cli.reporter import reporter
from tlora_cli.families import FAMILIES
from tlora_cli.formats.registry import FORMATS
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.packages import PRODUCT

_TARGETS = [f"{PRODUCT} (which diffusers loads, too)", *(n for n in FORMATS if n != PRODUCT)]


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="Adapter of any kind: ours, diffusers, kohya, LyCORIS T-LoRA, published T-LoRA; "
            "file or folder."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="The new file (.safetensors); for comfyui, peft and published, a folder."
        ),
    ],
    to: Annotated[
        str,
        typer.Option(help=f"{either(_TARGETS)}.", autocompletion=completing(FORMATS)),
    ] = PRODUCT,
    min_rank: Annotated[
        int | None, typer.Option(min=1, help="Least rank, for files that don't say.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Exponent of the rank schedule, for files that don't say.")
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help=f"{either(FAMILIES)}; by default told from the layers.",
            autocompletion=completing(FAMILIES),
        ),
    ] = None,
    placeholder: Annotated[
        str | None, typer.Option(help="Word that stands for the concept, e.g. sks.")
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="What the concept is, e.g. dog.")
    ] = None,
    slices: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="For comfyui: at most so many LoRAs that are switched on one by one. Fewer are "
            "faster, and some ranks are then on too early or too late; it says how many.",
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model that it was trained on: Hub id, folder or file.")
    ] = None,
) -> None:
    """Write any adapter that tlora reads in another format.

    tlora: one file that says its own rank schedule; diffusers loads it without. kohya: a plain LoRA
    for ComfyUI, A1111 and others. diffusers: a plain LoRA in diffusers' names. peft: the same as
    PEFT's folder. comfyui: the ranks as LoRAs with a workflow that keeps the schedule. lycoris: a
    T-LoRA for LyCORIS 4. published: a run's folder for the published T-LoRA code. To put it into a
    model, use tlora merge.
    """
    check_name("--family", family, FAMILIES)
    check_known("--to", to, FORMATS)
    hush_libraries()
    folder = FORMATS[to].folder
    if slices is not None and not FORMATS[to].slices:
        others = either(name for name in FORMATS if FORMATS[name].slices)
        raise UserError(
            f"{to} has no slices of ranks", "--slices", f"leave it out, or use --to {others}"
        )
    if not folder and output.suffix.lower() != ".safetensors":
        raise UserError("--output must end in .safetensors", str(output), "choose another name")
    if folder and output.suffix:
        raise UserError(f"--output must be a folder for {to}", str(output), "leave the suffix out")
    if output.exists():
        kind = "folder" if output.is_dir() else "file"
        raise UserError(
            f"the output {kind} exists already", str(output), "choose another name, or remove it"
        )

    from tlora_cli.tools.convert import convert_file

    given = {"placeholder": placeholder, "class_name": class_name, "base_model": base}
    written, notes = convert_file(source, output, family, base, min_rank, alpha, given, to, slices)
    reporter.result(
        "converted",
        f"wrote {output}: {written}",
        output=str(output),
        format=to,
        text=written,
        notes=notes,
    )
    reporter.advise(*(f"  {note}" for note in notes))
