"""Draw the training pictures of the built-in world once and keep them in the work folder."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tlora_cli.foundation.files import write_atomically
from tlora_cli.toyworld.factors import ATTRIBUTES, Scene, draw_scene
from tlora_cli.toyworld.renderer import draw

WORLD = 2
"""Version of the world, in the names of the cached drawings."""
BLOCK = 1000
"""Pictures to a cache file: what is drawn stays when the drawing is stopped."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures and what is on them.

    Attributes:
        pixels: (N, 64, 64, 3) uint8.
        values: (N, attributes) uint8, the number of each value in `ATTRIBUTES`.
    """

    pixels: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def tensor(self, indices: Tensor | slice) -> Tensor:
        """Return (B, 3, 64, 64) float32 in [-1, 1]."""
        chosen = torch.from_numpy(self.pixels[indices])
        return chosen.permute(0, 3, 1, 2).float() / 127.5 - 1

    def named(self, index: int) -> dict[str, str]:
        """Return attribute -> value of a picture."""
        row = self.values[index]
        return {name: known[row[i]] for i, (name, known) in enumerate(ATTRIBUTES.items())}


def scene(kind: str, number: int) -> Scene:
    """Return scene `number` of `seen`, `held-out` or `any` combinations.

    Names such as `seen-test` draw other pictures of the same kind.
    """
    held_out = {"seen": False, "held": True, "any": None}[kind.split("-")[0]]
    return draw_scene(random.Random(f"{kind} {number}"), held_out)


def pictures_of(scenes: Sequence[Scene]) -> Pictures:
    """Return the drawings of scenes, and what is on them."""
    pixels = np.stack([np.asarray(draw(one).image) for one in scenes])
    values = [[known.index(one[name]) for name, known in ATTRIBUTES.items()] for one in scenes]
    return Pictures(pixels, np.array(values, np.uint8))


def load(work: Path, kind: str, count: int) -> Pictures:
    """Return the first `count` pictures of a kind; draw those not in the cache, on all cores."""
    folder = work / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    blocks = [
        (folder / f"world{WORLD}-{kind}-{start:06d}.npz", kind, start)
        for start in range(0, count, BLOCK)
    ]
    missing = [block for block in blocks if not block[0].exists()]
    if missing:
        print(f"drawing {len(missing) * BLOCK} pictures of {kind} combinations", flush=True)
        with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(_draw_block, missing))
    parts = [np.load(path) for path, _, _ in blocks]
    return Pictures(
        np.concatenate([part["pixels"] for part in parts])[:count],
        np.concatenate([part["values"] for part in parts])[:count],
    )


def _draw_block(block: tuple[Path, str, int]) -> None:
    path, kind, start = block
    drawn = pictures_of([scene(kind, number) for number in range(start, start + BLOCK)])

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez(file, pixels=drawn.pixels, values=drawn.values)

    write_atomically(path, write)


def save_array(file: Path, values: np.ndarray) -> None:
    """Write an array atomically, under the very name of the file."""

    def write(part: Path) -> None:
        with part.open("wb") as opened:
            np.save(opened, values)

    write_atomically(file, write)
