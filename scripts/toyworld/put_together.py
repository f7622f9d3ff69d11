"""Readable pictures for the judge that are put together: a drawing's subject, cut out, on a place.

Scenes for one photo look like this, and so does what an adapter draws after it learned from them:
the subject as sharp as ever, the place a little softer, and a trace of a seam between them. Nobody
would call such a picture unreadable. The code that cuts and puts down is the program's own.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pictures import Pictures
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tlora_cli.foundation.files import write_atomically
from tlora_cli.recipe.scenes import ScenesConfig
from tlora_cli.toyworld.factors import ATTRIBUTES, FACTORS, SIZE, Scene, draw_scene
from tlora_cli.toyworld.renderer import draw, draw_place
from tlora_cli.training.scenes.composition import compose
from tlora_cli.training.scenes.placement import box_of, put_down

SETTINGS = ScenesConfig(movement=0.03)
"""A subject stays nearly where it was, so that the name of its position stays true."""
_MIRRORED = {"left": "right", "right": "left", "center": "center"}


class PutTogether(NamedTuple):
    """A picture and what is on it: (3, 64, 64) in [-1, 1], and its scene."""

    pixels: Tensor
    scene: Scene


def put_together(name: str) -> PutTogether:
    """Return a picture; the same name gives the same one.

    The scene is of any combination, held-out ones included, and has no accessory: it would be cut
    in two.
    """
    rng = random.Random(name)
    chance = torch.Generator().manual_seed(rng.getrandbits(40))
    drawn = draw(draw_scene(rng, None).changed(accessory="none"))
    mask = torch.from_numpy(np.array(drawn.mask)).float()[None] / 255
    box = box_of(mask)
    placement = put_down(box, (SIZE, SIZE), SETTINGS, chance)
    where = rng.choice(FACTORS["background"])
    place = _pixels(draw_place(where, rng.getrandbits(30)))
    place = torch.lerp(place, _soft(place), rng.random())
    pixels, _ = compose(_pixels(drawn.image), mask, box, place, placement)
    position = drawn.scene["position"]
    if placement.mirrored:
        position = _MIRRORED[position]
    return PutTogether(pixels, drawn.scene.changed(background=where, position=position))


def load_put_together(work: Path, kind: str, count: int) -> Pictures:
    """Return pictures put together, drawn once and kept in the work folder.

    Args:
        work: the work folder.
        kind: of what; another name gives other pictures.
        count: how many.
    """
    file = work / "pictures" / f"put-together-{kind}-{count}.npz"
    if not file.exists():
        made = [put_together(f"{kind} {number}") for number in range(count)]
        whole = torch.stack([one.pixels for one in made]).permute(0, 2, 3, 1)
        pixels = ((whole + 1) * 127.5).round().byte().numpy()
        values = np.array(
            [[known.index(one.scene[name]) for name, known in ATTRIBUTES.items()] for one in made],
            dtype=np.uint8,
        )

        def write(part: Path) -> None:
            with part.open("wb") as opened:
                np.savez(opened, pixels=pixels, values=values)

        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, write)
    kept = np.load(file)
    return Pictures(kept["pixels"], kept["values"])


def _pixels(image: Image.Image) -> Tensor:
    """Return (3, 64, 64) in [-1, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 127.5 - 1


def _soft(pixels: Tensor) -> Tensor:
    """Return a picture, each pixel the mean of the nine around it."""
    padded = functional.pad(pixels[None], (1, 1, 1, 1), mode="replicate")
    return functional.avg_pool2d(padded, 3, 1)[0]
