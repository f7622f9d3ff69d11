"""Take what was learned to other programs: by the functions of `tlora convert` and `publish`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.foundation.errors import UserError, known_names
from tlora_cli.foundation.packages import PRODUCT

FOLDER = Path("exports")
"""Folder of all that is exported, in the folder that the studio was started in."""


@dataclass(frozen=True)
class Target:
    """A program that an adapter is taken to.

    Attributes:
        title: what people call it.
        about: what is written, in a sentence.
        format: a name of `FORMATS`; None for the folder of `tlora publish`.
        suffix: of the file; empty for a folder.
    """

    title: str
    about: str
    format: str | None
    suffix: str = ""


TARGETS: Mapping[str, Target] = {
    "comfyui": Target(
        "ComfyUI",
        "A folder with LoRA files and a workflow that keeps the rank schedule.",
        "comfyui",
    ),
    "diffusers": Target(
        "diffusers",
        "One file that pipeline.load_lora_weights loads, as a plain LoRA.",
        "diffusers",
        ".safetensors",
    ),
    "hub": Target(
        "Hugging Face Hub",
        "A folder with adapter, model card and previews. Nothing is uploaded.",
        None,
    ),
}
"""Name -> target, in the order of the page."""


def output_of(name: str, target: str) -> Path:
    """Return where the export of a run lies; each is written once.

    Raises:
        UserError: if there is no such target.
    """
    if target not in TARGETS:
        raise UserError(f"{target!r} is nothing to export to", do=known_names(target, TARGETS))
    return FOLDER / f"{name}-{target}{TARGETS[target].suffix}"


def command_of(target: str, source: str, output: Path) -> list[str]:
    """Return the words of the command that writes the same."""
    kind = TARGETS[target].format
    if kind is None:
        return [PRODUCT, "publish", source, "--output", str(output)]
    return [PRODUCT, "convert", source, "--to", kind, "--output", str(output)]


def export(wishes: dict[str, Any], notify: Callable[[str], None]) -> dict[str, Any]:
    """Write an export.

    Args:
        wishes: `target`, `adapter` (file), `run` (folder), `output`.
        notify: told what is done.

    Returns:
        `notes`: what to know about it, in sentences.

    Raises:
        UserError: for an adapter that can't be exported so, or an output that is there already.
    """
    from tlora_cli.tools.convert import convert_file
    from tlora_cli.tools.publish.run import Publication, publish

    target, output = TARGETS[wishes["target"]], Path(wishes["output"])
    if output.exists():
        raise UserError(
            f"{output} exists already, and is left as it is", do="remove it to write it anew"
        )
    notify(f"writing {output}")
    if target.format is None:
        notes: list[str] = []
        publish(Publication(Path(wishes["run"]), output), notes.append)
        return {"notes": notes}
    written, notes = convert_file(
        Path(wishes["adapter"]), output, None, None, None, None, {}, target.format
    )
    return {"notes": [written, *notes]}
