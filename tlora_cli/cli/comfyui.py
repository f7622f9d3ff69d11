"""The command `tlora comfyui`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.cli.reporter import reporter


def comfyui(
    path: Annotated[Path, typer.Argument(help="ComfyUI's folder, the one with custom_nodes.")],
) -> None:
    """Put a node into ComfyUI that loads adapters under their rank schedule.

    It reads tlora's own files, LyCORIS's T-LoRA and the published code's, and needs nothing that
    ComfyUI does not have. An older node of tlora is replaced.
    """
    from tlora_cli.tools.comfyui_node import WORKFLOWS, install

    folder = install(path)
    typer.echo(f"wrote {folder}")
    reporter.advise(
        "  start ComfyUI again, and copy your adapter.safetensors into its models/loras",
        f"  drop a file of {folder / WORKFLOWS} onto its page, or add the node Load T-LoRA",
    )
