"""The factors of a picture of the built-in world, and the pairs that the models never saw.

Five **factors** are named by captions: class, color, background, position, accessory. Two
**private** attributes are what a concept has of its own: marking and feature. Part of the captions
name them, so words can ask for them, but no prompt about a concept does. Two **details**, eyes and
shade, are the fine end of likeness: no caption ever names them. All pictures vary in all of these.
A concept is a class with a color and fixed private attributes and details; what its prompts don't
say can be learned from pictures only.

Split: about 20% of the (class, color), (class, background) and (color, background) pairs are held
out of the training of every model. A scene is *held out* if it has at least one such pair.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

SIZE = 64
"""Side of a picture in pixels."""

FACTORS: dict[str, tuple[str, ...]] = {
    "class": ("cat", "fish", "bird", "star", "mushroom", "house", "car", "ghost"),
    "color": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"),
    "background": (
        "meadow", "beach", "night sky", "snow", "brick wall", "underwater", "city", "tiles",
    ),
    "position": ("left", "center", "right"),
    "accessory": ("none", "hat", "crown", "balloon", "flag"),
}  # fmt: skip
"""Factor -> its values. Captions name them in many ways; `none` is never mentioned."""

PRIVATE: dict[str, tuple[str, ...]] = {
    "marking": (
        "none", "light stripes", "dark stripes", "light dots", "dark dots", "light sash",
        "dark sash",
    ),
    "feature": ("none", "wings", "antennae", "boots"),
}  # fmt: skip
"""Private attribute -> its values. Captions name them at times."""

DETAILS: dict[str, tuple[str, ...]] = {
    "eyes": ("round", "dark", "sleepy"),
    "shade": ("plain", "two-tone"),
}
"""Detail -> its values. No caption ever names them."""


ATTRIBUTES: dict[str, tuple[str, ...]] = {**FACTORS, **PRIVATE, **DETAILS}
"""Attribute -> its values, for all that a picture is made of."""

PLAIN_SHARE = 0.5
"""Share of pictures without marking, and of those without feature; the rest is drawn evenly."""

# Pair of factors -> (step, remainder): (i, j) is held out if (step * i + j) % 5 == remainder. One
# pair in five, spread so that every value of both factors loses one or two partners.
_HELD_OUT = {
    ("class", "color"): (2, 1),
    ("class", "background"): (3, 0),
    ("color", "background"): (2, 3),
}


SMALLEST, LARGEST = 0.88, 1.12
"""Range of a subject's scale."""


@dataclass(frozen=True)
class Pose:
    """The pose of the subject; captions don't say.

    Attributes:
        dx, dy: offset from the position, in pixels.
        scale: size; 1 is about 28 pixels.
        angle: tilt in degrees, clockwise.
        flipped: mirrored left to right.
    """

    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0
    angle: float = 0.0
    flipped: bool = False

    @classmethod
    def draw(cls, rng: random.Random) -> Pose:
        """Return a random pose."""
        return cls(
            dx=rng.uniform(-2, 2),
            dy=rng.uniform(-3, 3),
            scale=rng.uniform(SMALLEST, LARGEST),
            angle=rng.uniform(-9, 9),
            flipped=rng.random() < 0.5,
        )


@dataclass(frozen=True)
class Scene:
    """One picture, completely: the same scene gives the same pixels.

    Attributes:
        values: attribute -> value, for every factor and private attribute; a detail that is left
            out has its first value.
        pose: how the subject stands.
        texture: seed of the background's details and of the small changes of color.
    """

    values: dict[str, str]
    pose: Pose = field(default_factory=Pose)
    texture: int = 0

    def __post_init__(self) -> None:
        for name, known in ATTRIBUTES.items():
            value = self.values.get(name, known[0] if name in DETAILS else None)
            if value not in known:
                raise ValueError(f"{name} is {value!r}; known: {', '.join(known)}")

    def __getitem__(self, name: str) -> str:
        if name in DETAILS:
            return self.values.get(name, DETAILS[name][0])
        return self.values[name]

    def changed(self, **values: str) -> Scene:
        """Return the scene with other values of some attributes."""
        return replace(self, values={**self.values, **values})


def is_held_out(values: dict[str, str]) -> bool:
    """Say whether at least one pair of factors is held out of the models' training."""
    return any(pair_is_held_out(one, values[one], two, values[two]) for one, two in _HELD_OUT)


def pair_is_held_out(one: str, first: str, two: str, second: str) -> bool:
    """Say whether two values of two factors are a held-out pair."""
    step, remainder = _HELD_OUT[one, two]
    row, column = FACTORS[one].index(first), FACTORS[two].index(second)
    return (step * row + column) % 5 == remainder


def draw_factors(rng: random.Random, held_out: bool | None = None) -> dict[str, str]:
    """Return random values of the five factors.

    Args:
        rng: the source.
        held_out: True for held-out combinations only, False for seen ones, None for all.
    """
    while True:
        values = {name: rng.choice(known) for name, known in FACTORS.items()}
        if held_out is None or is_held_out(values) == held_out:
            return values


def draw_private(rng: random.Random) -> dict[str, str]:
    """Return random private attributes."""
    return {
        name: "none" if rng.random() < PLAIN_SHARE else rng.choice(known[1:])
        for name, known in PRIVATE.items()
    }


def draw_details(rng: random.Random) -> dict[str, str]:
    """Return random details, all values of each equally often."""
    return {name: rng.choice(known) for name, known in DETAILS.items()}


def draw_scene(rng: random.Random, held_out: bool | None = None) -> Scene:
    """Return a random scene; `held_out` as for `draw_factors`."""
    values = {**draw_factors(rng, held_out), **draw_private(rng)}
    pose, texture = Pose.draw(rng), rng.getrandbits(32)
    return Scene({**values, **draw_details(rng)}, pose, texture)


def chance(marking: str, feature: str) -> float:
    """Return how often pictures of the world have both private attributes by chance."""

    def share(name: str, value: str) -> float:
        rest = (1 - PLAIN_SHARE) / (len(PRIVATE[name]) - 1)
        return PLAIN_SHARE if value == "none" else rest

    return share("marking", marking) * share("feature", feature)
