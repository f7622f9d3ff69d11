"""Write drawings as files."""

from __future__ import annotations

import json
import random
from pathlib import Path

from PIL import Image

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import folder_atomically, write_text
from tlora_cli.toyworld.captions import caption
from tlora_cli.toyworld.concepts import find_concept
from tlora_cli.toyworld.factors import draw_scene
from tlora_cli.toyworld.renderer import draw


def write_concept(folder: Path, name: str) -> list[Path]:
    """Write a concept's pictures `1.png`, ... and masks `mask-1.png`, ... into a new folder.

    Raises:
        UserError: if there is no such concept, or the folder exists.
    """
    concept = find_concept(name)
    _refuse(folder)
    with folder_atomically(folder) as part:
        for number, scene in enumerate(concept.scenes(), 1):
            picture = draw(scene)
            _save(picture.image, part / f"{number}.png")
            _save(picture.mask, part / f"mask-{number}.png")
    return sorted(folder.iterdir())


def write_scenes(folder: Path, count: int, seed: int) -> list[Path]:
    """Write random scenes `000.png`, ... and `captions.jsonl` into a new folder.

    Raises:
        UserError: if the folder exists.
    """
    _refuse(folder)
    rng = random.Random(f"scenes {seed}")
    lines = []
    with folder_atomically(folder) as part:
        for number in range(count):
            picture = draw(draw_scene(rng))
            name = f"{number:03d}.png"
            _save(picture.image, part / name)
            values = picture.scene.values
            line = {"file": name, "caption": caption(values, rng, complete=True), **values}
            lines.append(json.dumps(line))
        write_text(part / "captions.jsonl", "\n".join(lines) + "\n")
    return sorted(folder.iterdir())


def _save(image: Image.Image, path: Path) -> None:
    image.save(path, optimize=True)


def _refuse(folder: Path) -> None:
    if folder.exists():
        raise UserError(
            f"{folder} exists already and is left as it is",
            where="--output",
            do="name a new folder, or remove this one",
        )
