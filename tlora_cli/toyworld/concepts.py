"""Twelve concepts to learn: each has a class, a color, and looks that its prompts never name.

Pictures of a concept differ in background, position, accessory and pose. The first one is *the*
training picture: its background, position and pose are what a trained model should forget.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tlora_cli.foundation.errors import UserError, known_names
from tlora_cli.toyworld.factors import FACTORS, LARGEST, PRIVATE, Pose, Scene, is_held_out

PICTURES = 4
"""Pictures of each concept."""


@dataclass(frozen=True)
class Concept:
    """One thing to learn.

    Attributes:
        name: what users call it.
        class_name, color: named by captions.
        marking, feature: private; no prompt about a concept names them.
        eyes, shade: details; no caption names them at all.
    """

    name: str
    class_name: str
    color: str
    marking: str
    feature: str
    eyes: str
    shade: str

    @property
    def values(self) -> dict[str, str]:
        """The attributes that are the same on all pictures: attribute -> value."""
        return {
            "class": self.class_name,
            "color": self.color,
            "marking": self.marking,
            "feature": self.feature,
            "eyes": self.eyes,
            "shade": self.shade,
        }

    def scenes(self) -> list[Scene]:
        """Return the concept's pictures as scenes; they share no background and no accessory.

        The combinations are seen ones, so that no factor is strange to the models. The first
        picture is taken by day and from as near as the world allows, as people photograph what
        they love: in the night's picture a pair of brown boots is a dozen pixels of mud.
        """
        rng = random.Random(f"concept {self.name}")
        backgrounds = [
            place
            for place in FACTORS["background"]
            if not is_held_out({**self.values, "background": place})
        ]
        rng.shuffle(backgrounds)
        if backgrounds[0] == "night sky":
            backgrounds[:2] = backgrounds[1], backgrounds[0]
        positions = rng.sample(FACTORS["position"], 3)
        accessories = ["none", *rng.sample(FACTORS["accessory"][1:], PICTURES - 1)]
        return [
            Scene(
                {
                    **self.values,
                    "background": backgrounds[number],
                    "position": positions[number % len(positions)],
                    "accessory": accessories[number],
                },
                Pose.draw(rng) if number else replace(Pose.draw(rng), scale=LARGEST),
                rng.getrandbits(32),
            )
            for number in range(PICTURES)
        ]


_TABLE = (
    ("pip", "star", "orange", "dark stripes", "boots", "round", "two-tone"),
    ("momo", "cat", "purple", "light dots", "wings", "round", "plain"),
    ("finn", "fish", "green", "light stripes", "antennae", "sleepy", "two-tone"),
    ("kiwi", "bird", "pink", "dark sash", "boots", "dark", "plain"),
    ("toto", "mushroom", "blue", "light sash", "wings", "sleepy", "plain"),
    ("casa", "house", "yellow", "dark stripes", "wings", "dark", "two-tone"),
    ("otto", "car", "green", "dark stripes", "antennae", "dark", "two-tone"),
    ("boo", "ghost", "red", "light stripes", "wings", "sleepy", "plain"),
    ("luna", "cat", "blue", "light stripes", "boots", "sleepy", "two-tone"),
    ("nova", "star", "white", "dark dots", "wings", "dark", "plain"),
    ("mimi", "mushroom", "red", "light dots", "boots", "round", "two-tone"),
    ("rosa", "bird", "red", "dark dots", "antennae", "round", "plain"),
)
CONCEPTS: dict[str, Concept] = {row[0]: Concept(*row) for row in _TABLE}
"""Name -> concept."""


def find_concept(name: str) -> Concept:
    """Return a concept by name.

    Raises:
        UserError: if there is none of that name.
    """
    if name not in CONCEPTS:
        raise UserError(
            f"the built-in world has no concept {name!r}",
            where="concept",
            do=known_names(name, CONCEPTS),
        )
    return CONCEPTS[name]


assert all(
    one.marking in PRIVATE["marking"][1:] and one.feature in PRIVATE["feature"][1:]
    for one in CONCEPTS.values()
)
