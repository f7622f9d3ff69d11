"""The parts of a base, and the files of each that are read."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tlora_cli.families import Family
from tlora_cli.families.loading import Base, read_index
from tlora_cli.families.variants import left_out

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model")
_WEIGHTS = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model|pytorch_model)"
    r"(?:\.(?P<variant>\w+))?(?:-(?P<number>\d{5})-of-(?P<total>\d{5}))?"
    r"\.(?P<kind>safetensors|bin)"
)


@dataclass(frozen=True)
class Part:
    """A part of a base, such as its text_encoder: what of it should be on the disk."""

    name: str
    files: list[str]
    lacking: str = ""
    """The files that are not there, or empty."""


def needed_parts(
    family: Family, names: Collection[str], variant: str | None, without: Collection[str] = ()
) -> list[Part]:
    """Return the files of a base that are read, of all that it has.

    Args:
        family: of the base.
        names: of its files, from the base's top down.
        variant: of the weights, such as fp16; parts without it have the plain files.
        without: parts that the base does without.
    """
    parts = (*family.text_parts, "vae", family.denoiser, "scheduler")
    return [
        _part(part, [n for n in names if n.startswith(f"{part}/")], variant)
        for part in parts
        if part not in without
    ]


def left_out_in(family: Family, folder: Path) -> Collection[str]:
    """Return the parts that the base in a folder does without, by its index."""
    return left_out(family, read_index(Base(str(folder))))


def _part(part: str, names: list[str], variant: str | None) -> Part:
    own = [name.removeprefix(f"{part}/") for name in names]
    small = [f"{part}/{name}" for name in own if name.endswith((".json", ".txt", ".model"))]
    if not own:
        return Part(part, [], f"the folder {part} is missing")
    if part.startswith(("tokenizer", "processor")):
        there = any(name in own for name in _TOKENIZER_FILES)
        return Part(part, small, "" if there else f"{part} holds no vocabulary")
    config = "scheduler_config.json" if part == "scheduler" else "config.json"
    if config not in own:
        return Part(part, small, f"{part}/{config} is missing")
    if part == "scheduler":
        return Part(part, small)
    weights, lacking = _weights(part, own, variant)
    return Part(part, [*small, *(f"{part}/{name}" for name in weights)], lacking)


def _weights(part: str, names: list[str], variant: str | None) -> tuple[list[str], str]:
    """Return the weight files that are read, and what is missing of them."""
    found = [match for name in names if (match := _WEIGHTS.fullmatch(name))]
    for wanted in dict.fromkeys((variant, None)):
        for kind in ("safetensors", "bin"):
            chosen = [m for m in found if m["variant"] == wanted and m["kind"] == kind]
            whole = [m.string for m in chosen if m["number"] is None]
            if whole:
                return whole[:1], ""
            if chosen:
                total = int(chosen[0]["total"])
                short = "" if len(chosen) == total else f"{len(chosen)} of {total} files of weights"
                return [m.string for m in chosen], short and f"{part} has only {short}"
    return [], f"{part} has no weights"
