#!/usr/bin/env python3
"""Measure how well masks are found, with and without a base's help, against masks that are known.

Drawings of the built-in world have true masks, and so has assets/photo.jpg. The five photographs of
the DreamBooth data set's `dog` (by Alvan Nee, Unsplash license) have outlines painted by hand:
scripts/dog_outlines.json, in thousandths of the photo's width.

    python scripts/mask_accuracy.py --dog data/dog --overlays docs/images/masks
    python scripts/mask_accuracy.py --base toy-sdxl --base toy-flux --look looked-at

Only the drawings are measured with a base: the built-in ones know nothing else.
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
import torch
from PIL import Image

from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base
from tlora_cli.methods import DEFAULT
from tlora_cli.photos.masks.finder import FoundMask, MaskFinder, Seen
from tlora_cli.photos.masks.overlay import overlay
from tlora_cli.recipe.defaults import published_settings
from tlora_cli.recipe.train_sections import TrainConfig
from tlora_cli.sampling.looking import look
from tlora_cli.toyworld.bundle import BUNDLE
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


def on_drawings(
    scenes: list[tuple[str, Scene]], base: str | None = None, overlays: Path | None = None
) -> Iterator[Result]:
    """Yield the results on drawings.

    Args:
        scenes: by their names.
        base: that helps; None for none.
        overlays: folder for pictures to look at.
    """
    with tempfile.TemporaryDirectory() as folder:
        files, truths = [], []
        for number, (_, scene) in enumerate(scenes):
            drawn = draw(scene)
            files.append(Path(folder) / f"{number}.png")
            drawn.image.save(files[-1])
            truths.append(np.asarray(drawn.mask) > 127)
        seen = {} if base is None else seen_by(base, files, [one["class"] for _, one in scenes])
        for file, truth, (name, _) in zip(files, truths, scenes, strict=True):
            found = MaskFinder().find(file, name, seen.get(file))
            if overlays and name:
                overlays.mkdir(parents=True, exist_ok=True)
                shown = overlay(found.photo, found.mask).resize((256, 256), Image.Resampling.BOX)
                shown.save(overlays / f"{name.replace('/', '-')}-{base or 'contrast'}.png")
            yield result(name, found, truth)


def seen_by(base: str, files: list[Path], classes: list[str]) -> dict[Path, Seen]:
    """Return where a built-in base sees the class on each drawing."""
    family = BUNDLE.bases[base]
    train = TrainConfig.model_validate(published_settings(family, DEFAULT, base)["train"])
    seen = {}
    for word in sorted(set(classes)):
        own = [file for file, kind in zip(files, classes, strict=True) if kind == word]
        maps = look(FAMILIES[family], Base(base), train, word, own, "drawing", torch.device("cpu"))
        seen |= {file: Seen(base, one) for file, one in zip(own, maps, strict=True)}
    return seen


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
    parser.add_argument("--base", action="append", default=[], help="built-in base that helps")
    parser.add_argument("--look", type=Path, help="folder for overlays of the concepts' pictures")
    given = parser.parse_args()
    print("| pictures | count | mean IoU | median | least | in doubt |\n|---|---|---|---|---|---|")
    pictures = [
        (f"{name}/{number}", scene)
        for name, concept in CONCEPTS.items()
        for number, scene in enumerate(concept.scenes(), 1)
    ]
    rng = random.Random(f"mask accuracy {given.seed}")
    scenes = [("", draw_scene(rng)) for _ in range(given.scenes)]
    groups = {
        "concepts, the training picture": [one for one in pictures if one[0].endswith("/1")],
        "concepts, the other pictures, with props": [
            one for one in pictures if not one[0].endswith("/1")
        ],
        "random scenes without props": [one for one in scenes if one[1]["accessory"] == "none"],
        "random scenes with props": [one for one in scenes if one[1]["accessory"] != "none"],
    }
    for base in (None, *given.base):
        each = []
        for title, chosen in groups.items():
            if chosen:
                found = list(on_drawings(chosen, base, given.look))
                each += [one for one in found if one.name]
                print(line(title + (f", {base} helps" if base else ""), found), flush=True)
        print("each:", ", ".join(f"{one.name} {one.overlap:.2f}" for one in each))
        print(f"concepts: {np.mean([one.overlap for one in each]):.3f}, doubts counted", flush=True)
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


if __name__ == "__main__":
    main()
