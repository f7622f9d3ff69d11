"""Pictures of a card, written again without what is private in their metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from PIL import Image

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.pictures import picture_settings
from tlora_cli.sampling.draw import Job, SamplingSettings, write_picture

FOLDER = "images"
MOST = 24
"""Pictures of a card, at most."""
_ABOUT = ("precision", "method", "scale", "train_steps", "rank", "min_rank", "schedule")
"""Metadata of a picture that stays beside prompt, seed and settings."""


@dataclass(frozen=True)
class Shown:
    """A picture of the card.

    Attributes:
        file: its path within the folder that is published.
        job: prompt and seed.
        settings: how it was drawn.
        scale: strength of the adapter.
    """

    file: str
    job: Job
    settings: SamplingSettings
    scale: float


def find_pictures(folder: Path) -> tuple[list[tuple[Path, dict[str, Any]]], list[str]]:
    """Return the pictures in a folder with what each says of itself, and notes on those left out.

    Raises:
        UserError: if there is no such folder, or a file in it is no whole picture.
    """
    if not folder.is_dir():
        raise UserError("there is no such folder", where=str(folder), do="check --pictures")
    found, mute = [], 0
    for file in sorted(folder.glob("*.png")):
        said = picture_settings(file)
        if _complete(said):
            found.append((file, said))
        else:
            mute += 1
    notes = [f"{mute} PNG files don't say how they were drawn, and are left out"] if mute else []
    if len(found) > MOST:
        notes.append(f"of {len(found)} pictures the first {MOST} are taken")
    return found[:MOST], notes


_KINDS = {"int": int, "float": (int, float), "str": str}


def _complete(said: Mapping[str, Any]) -> bool:
    wanted: list[tuple[str, Any]] = [("prompt", str), ("seed", int)]
    wanted += [(field.name, _KINDS[str(field.type)]) for field in fields(SamplingSettings)]
    return all(isinstance(said.get(name), kind) for name, kind in wanted)


def publish_pictures(found: Sequence[tuple[Path, Mapping[str, Any]]], folder: Path) -> list[Shown]:
    """Write pictures into `images/` of a folder.

    Args:
        found: see `find_pictures`.
        folder: that is published.
    """
    shown = []
    (folder / FOLDER).mkdir(exist_ok=True)
    for number, (file, said) in enumerate(found):
        job = Job(said["prompt"], said["seed"])
        settings = SamplingSettings(**{f.name: said[f.name] for f in fields(SamplingSettings)})
        name = f"{FOLDER}/{number:03d}.png"
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        about = {key: said[key] for key in _ABOUT if key in said}
        write_picture(folder / name, job, picture, settings, about)
        scale = said.get("scale")
        shown.append(Shown(name, job, settings, scale if isinstance(scale, int | float) else 1.0))
    return shown


def publish_training_pictures(kept: Sequence[Path], folder: Path) -> list[str]:
    """Write the small copies of training pictures into `images/`; return their paths there."""
    names = []
    (folder / FOLDER).mkdir(exist_ok=True)
    for number, file in enumerate(kept):
        names.append(f"{FOLDER}/training-{number:03d}.png")
        with Image.open(file) as opened:  # pixels alone, no metadata
            opened.convert("RGB").save(folder / names[-1])
    return names
