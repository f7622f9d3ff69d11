"""The put-down of a subject in each scene: a function of the seed, the masks and the settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tlora_cli.photos.framing import Size
from tlora_cli.recipe.scenes import ScenesConfig
from tlora_cli.training.batch import SCENES, generator_for

SOLID = 0.5
"""Value of a mask from which a pixel belongs to the subject."""
RISE = 0.05
"""Share of the height by which a subject may move up or down; most photographs have a ground."""


@dataclass(frozen=True)
class Box:
    """Edges of the subject in pixels, the last ones excluded, and the borders that cut it.

    Attributes:
        left, top, right, bottom: edges.
        cut: names of the borders that the subject touches.
    """

    left: int
    top: int
    right: int
    bottom: int
    cut: frozenset[str]


@dataclass(frozen=True)
class Placement:
    """The way a subject is put down.

    Attributes:
        width, height: size of the cut-out in pixels after scaling.
        left, top: its first pixel; may lie outside of the picture.
        mirrored: flipped left to right.
    """

    width: int
    height: int
    left: int
    top: int
    mirrored: bool


@dataclass(frozen=True)
class Scene:
    """One scene.

    Attributes:
        image: number of the photo.
        place: number of the place's picture; None: the untouched photo.
        placement: how the subject is put down; None for the untouched photo.
    """

    image: int
    place: int | None
    placement: Placement | None


def box_of(mask: Tensor) -> Box:
    """Return the box of a subject.

    Args:
        mask: (1, H, W) in [0, 1].
    """
    solid = mask[0] >= SOLID
    rows, columns = solid.any(1).nonzero().flatten(), solid.any(0).nonzero().flatten()
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    edges = {
        "left": left == 0,
        "top": top == 0,
        "right": right == mask.shape[2],
        "bottom": bottom == mask.shape[1],
    }
    return Box(left, top, right, bottom, frozenset(name for name, cut in edges.items() if cut))


def plan_scenes(
    boxes: Sequence[Box],
    sizes: Sequence[Size],
    pictures: int,
    config: ScenesConfig,
    seed: int,
) -> list[Scene]:
    """Return all scenes of a run; the untouched photos come first.

    Photos and places are taken in turn, so each comes up as often as another.

    Args:
        boxes: of the subject in each photo.
        sizes: of each training picture.
        pictures: how many pictures of places there are.
        config: settings.
        seed: of the run.
    """
    untouched = max(len(boxes), round(config.untouched * config.count)) if config.untouched else 0
    scenes = [
        Scene(image, None, None) for image in sorted(n % len(boxes) for n in range(untouched))
    ]
    chance = generator_for(seed, SCENES)
    order = torch.randperm(pictures, generator=chance).tolist()
    for number in range(config.count - untouched):
        image = number % len(boxes)
        placement = put_down(boxes[image], sizes[image], config, chance)
        scenes.append(Scene(image, order[number % pictures], placement))
    return scenes


def put_down(box: Box, size: Size, config: ScenesConfig, chance: torch.Generator) -> Placement:
    """Return a random placement of a subject.

    A subject that a border cuts stays at that border, and one that is whole stays whole, as far as
    it fits.

    Args:
        box: of the subject.
        size: of the training picture.
        config: settings.
        chance: says which placement.
    """
    whole_width, whole_height = size
    scale, across, up, flip = torch.rand(4, generator=chance, dtype=torch.float64).tolist()
    small, large = config.sizes
    scale = small + (large - small) * scale
    mirrored = config.mirror and flip < _HALF
    cut = {_OTHER.get(name, name) for name in box.cut} if mirrored else set(box.cut)
    if {"left", "right"} <= cut or {"top", "bottom"} <= cut:
        scale = max(scale, 1.0)
    width = max(1, round(scale * (box.right - box.left)))
    height = max(1, round(scale * (box.bottom - box.top)))
    middle = (box.left + box.right) / 2
    middle = whole_width - middle if mirrored else middle
    middle += (2 * across - 1) * config.movement * whole_width
    # The foot of the subject stays where it was, more or less.
    foot = box.bottom + (2 * up - 1) * RISE * whole_height
    left = _start(middle - width / 2, width, whole_width, "left" in cut, "right" in cut)
    top = _start(foot - height, height, whole_height, "top" in cut, "bottom" in cut)
    return Placement(width, height, left, top, mirrored)


def _start(wanted: float, length: int, side: int, at_start: bool, at_end: bool) -> int:
    """Return the first pixel of a subject along one direction."""
    if at_start and at_end:
        return (side - length) // 2
    if at_start:
        return 0
    if at_end:
        return side - length
    return min(max(0, round(wanted)), side - length) if length <= side else (side - length) // 2


def middle_of(placement: Placement, width: int) -> float:
    """Return where the middle of the subject lies in a picture, from 0 (left) to 1 (right)."""
    first, last = max(0, placement.left), min(width, placement.left + placement.width)
    return (first + last) / (2 * width)


_HALF = 0.5
_OTHER = {"left": "right", "right": "left"}
