"""The command `tlora merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.cli.reporter import reporter
from tlora_cli.foundation.errors import UserError


def merge(
    adapter: Annotated[Path, typer.Argument(help="Adapter of any kind that tlora reads.")],
    output: Annotated[
        Path,
        typer.Option(
            help="New folder for a whole diffusers model, or new .safetensors file for the "
            "denoiser alone."
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(help="Base model: folder, file or Hub id; default the adapter's own."),
    ] = None,
    base_config: Annotated[
        str | None,
        typer.Option(help="Diffusers folder with the configuration of a single-file base."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Number format of the new weights: fp32 or fp16.")] = (
        "fp32"
    ),
    rank: Annotated[
        int | None,
        typer.Option(min=1, help="Merge the first ranks only, such as the least of the schedule."),
    ] = None,
) -> None:
    """Put an adapter into its base's weights: a plain model for any tool, without a mask.

    The rank schedule can't be kept that way; the command says at which rank it merges. Works for
    every method. The sums are made in fp32 in memory: about 4 bytes a parameter of the denoiser.
    """
    if output.suffix.lower() not in ("", ".safetensors"):
        raise UserError(
            "--output must be a folder, or end in .safetensors", str(output), "choose another name"
        )
    if output.exists():
        kind = "folder" if output.is_dir() else "file"
        raise UserError(
            f"the output {kind} exists already", str(output), "choose another name, or remove it"
        )
    hush_libraries()
    from tlora_cli.tools.merge import known_dtype, merge_file

    known_dtype(dtype)
    about = merge_file(adapter, output, base=base, base_config=base_config, dtype=dtype, rank=rank)
    reporter.result(
        "merged", f"wrote {output} in {dtype}", output=str(output), dtype=dtype, notes=about
    )
    reporter.advise(*(f"  {note}" for note in about))
