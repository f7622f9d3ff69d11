"""The command `tlora sheet`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tlora_cli.cli.choices import (
    DEVICES,
    PRECISIONS,
    QUANTIZATIONS,
    check_name,
    completing,
    either,
)
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.cli.reporter import reporter
from tlora_cli.foundation.errors import UserError


def sheet(
    adapters: Annotated[
        list[str],
        typer.Argument(
            metavar="ADAPTER|RUN...",
            help="Adapter file or run folder; several, or NAME=PATH, for the axis method.",
        ),
    ],
    prompt: Annotated[
        list[str], typer.Option(help="A prompt; V* is the concept. Repeat for more.")
    ],
    over: Annotated[
        str,
        typer.Option(
            metavar="AXIS,AXIS",
            help="Two of step, scale, method, schedule, seed, or one; the first goes down.",
        ),
    ] = "step,scale",
    values: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS=VALUE,...",
            help="Values of an axis, such as scale=0.6,1 or schedule=trained,none,cosine.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for sheets; each gets a number.")] = Path(
        "sheets"
    ),
    scale: Annotated[float, typer.Option(help="Adapter strength, where it is no axis.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed; the first one, where it is an axis.")] = 0,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Guidance scale.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model, over the one the file names.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help=f"{either(PRECISIONS)}.", autocompletion=completing(PRECISIONS)),
    ] = None,
    quantization: Annotated[
        str | None,
        typer.Option(
            help=f"{either(QUANTIZATIONS)}; default: as it was trained.",
            autocompletion=completing(QUANTIZATIONS),
        ),
    ] = None,
    offload: Annotated[
        bool,
        typer.Option("--offload", help="Keep the base in main memory, for a small card; slower."),
    ] = False,
    device: Annotated[
        str, typer.Option(help=f"{either(DEVICES)}.", autocompletion=completing(DEVICES))
    ] = "auto",
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Draw prompts as they stand, also without the concept."),
    ] = False,
) -> None:
    """Draw one picture of two axes, such as training step and strength, with the same seeds.

    The quickest way to choose a checkpoint and a strength. The base model is loaded once.
    """
    from tlora_cli.tools.sheet.axes import parse_axes, parse_values

    check_name("--precision", precision, PRECISIONS)
    check_name("--quantization", quantization, QUANTIZATIONS)
    check_name("--device", device, DEVICES)
    axes = parse_axes(over)
    given = parse_values(values or (), axes)
    if not all(one.strip() for one in prompt):
        raise UserError("a prompt is empty", "--prompt", 'write "a photo of a V* in the snow"')
    hush_libraries()
    from tlora_cli.tools.sheet.drawing import SheetRequest, draw_sheet

    size = {"width": width, "height": height, "steps": steps, "guidance": guidance}
    drawing = {
        "base": base,
        "precision": precision,
        "quantization": quantization,
        "offload": offload,
        "device": device,
        "anyway": anyway,
        "settings": size,
    }
    asked = SheetRequest(
        adapters, tuple(dict.fromkeys(prompt)), axes, given, output, scale, seed, drawing
    )
    console = reporter.console()
    columns = (
        TextColumn("pictures {task.completed}/{task.total}"),
        BarColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        written = draw_sheet(
            asked,
            lambda line: console.print(line, highlight=False, markup=False),
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    typer.echo(str(written))
