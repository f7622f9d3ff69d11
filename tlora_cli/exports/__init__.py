"""Adapters in the formats of other tools: one a file. `TARGETS` has them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tlora_cli.exports import comfyui, kohya, lycoris, ours, peft_lora, published
from tlora_cli.formats import AdapterWeights

__all__ = ["TARGETS", "Target"]

Sizes = Mapping[str, int]
"""Outputs of the denoiser's linear layers, by name."""


class Target(NamedTuple):
    """A format to write.

    Attributes:
        write: (output, weights with family and schedule, sizes) -> what the new file can't say,
            in sentences.
        folder: whether the output is a folder.
    """

    write: Callable[[Path, AdapterWeights, Sizes], list[str]]
    folder: bool = False


TARGETS: dict[str, Target] = {
    "tlora": Target(ours.write),
    "diffusers": Target(peft_lora.write),
    "kohya": Target(kohya.write),
    "comfyui": Target(comfyui.write, folder=True),
    "lycoris": Target(lycoris.write),
    "published": Target(published.write, folder=True),
}
"""Name -> target. diffusers loads our own file, too."""
