#!/usr/bin/env python3
"""Measure how well masks are found without a model, against masks that are known.

Drawings of the built-in world have true masks, and so has assets/photo.jpg. The five photographs of
the DreamBooth data set's `dog` (by Alvan Nee, Unsplash license) have outlines painted by hand:
scripts/dog_outlines.json, in thousandths of the photo's width.

    python scripts/mask_accuracy.py --dog data/dog --overlays docs/images/masks
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tlora_cli.photos.masks.finder import FoundMask, MaskFinder
from tlora_cli.photos.masks.overlay import overlay
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.factors import Scene, draw_scene
from tlora_cli.toyworld.renderer import draw

ROOT = Path(__file__).resolve().parents[1]
OUTLINES = Path(__file__).parent / "dog_outlines.json"
SCALE = 1000
"""The photo's width in units of the outlines."""
SMALL = 384
"""Side of the overlays that go into the docs, in pixels."""


@dataclass(frozen=True)
class Result:
    """A mask that was found, against the true one."""

    name: str
    overlap: float
    doubt: str | None


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """Return intersection over union of two masks, bool."""
    union = (mask | truth).sum()
    return float((mask & truth).sum() / union) if union else 1.0


def painted(outlines: list[list[list[float]]], width: int, height: int) -> np.ndarray:
    """Return the mask inside of outlines, (height, width) bool."""
    mask = np.zeros((height, width), np.uint8)
    for outline in outlines:
        points = np.asarray(outline) * width / SCALE
        cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
    return mask.astype(bool)


def on_drawings(scenes: list[tuple[str, Scene]]) -> Iterator[Result]:
    """Yield the results on drawings."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "drawing.png"
        for name, scene in scenes:
            drawn = draw(scene)
            drawn.image.save(file)
            yield result(name, MaskFinder().find(file, name), np.asarray(drawn.mask) > 127)


def result(name: str, found: FoundMask, truth: np.ndarray) -> Result:
    return Result(name, overlap(np.asarray(found.mask) > 127, truth), found.doubt)


def line(title: str, results: list[Result]) -> str:
    """Return a row of the table; a mask in doubt stops a run, so it isn't in the mean."""
    scores = [one.overlap for one in results if not one.doubt]
    refused = sum(one.doubt is not None for one in results)
    return (
        f"| {title} | {len(results)} | {np.mean(scores):.3f} | {np.median(scores):.3f} "
        f"| {np.min(scores):.2f} | {refused} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=200, help="random scenes of the world")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random scenes")
    parser.add_argument("--dog", type=Path, help="folder with 00.jpg to 04.jpg")
    parser.add_argument("--overlays", type=Path, help="folder for small overlays of them")
    given = parser.parse_args()
    print("| pictures | count | mean IoU | median | least | in doubt |\n|---|---|---|---|---|---|")
    pictures = [
        (f"{name}/{number}", scene)
        for name, concept in CONCEPTS.items()
        for number, scene in enumerate(concept.scenes(), 1)
    ]
    first = list(on_drawings([one for one in pictures if one[0].endswith("/1")]))
    print(line("concepts, the training picture", first), flush=True)
    print(line("concepts, the other pictures, with props", list(
        on_drawings([one for one in pictures if not one[0].endswith("/1")])
    )), flush=True)  # fmt: skip
    rng = random.Random(f"mask accuracy {given.seed}")
    scenes = [draw_scene(rng) for _ in range(given.scenes)]
    for title, bare in (("random scenes without props", True), ("with props", False)):
        chosen = [("", one) for one in scenes if (one["accessory"] == "none") == bare]
        if chosen:
            print(line(title, list(on_drawings(chosen))), flush=True)
    truth = np.asarray(Image.open(ROOT / "assets" / "photo_mask.png").convert("L")) > 127
    photo = MaskFinder().find(ROOT / "assets" / "photo.jpg", "assets")
    print(line("assets/photo.jpg", [result("photo", photo, truth)]))
    if given.dog:
        results = []
        for name, outlines in json.loads(OUTLINES.read_text("utf-8")).items():
            found = MaskFinder().find(given.dog / name, "--dog")
            results.append(result(name, found, painted(outlines, *found.mask.size)))
            if given.overlays:
                given.overlays.mkdir(parents=True, exist_ok=True)
                small = overlay(found.photo, found.mask)
                small.thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS)
                small.save(given.overlays / f"dog-{name}", quality=85)
        print(line("photographs of a dog", results))
        print(", ".join(f"{one.name} {one.overlap:.3f}" for one in results))
    print("training pictures:", ", ".join(f"{one.name} {one.overlap:.2f}" for one in first))


if __name__ == "__main__":
    main()
