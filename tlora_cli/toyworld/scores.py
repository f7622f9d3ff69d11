"""The six scores, from the judge's readings; every other file takes them from here.

S*    share of pictures on which all that was asked and all that is private is right at once.
TS*   share on which every prompted attribute is right.
ID*   share on which every private attribute (marking and feature) is the concept's.
details
      share on which the eyes and the shade, which no caption ever names, are the concept's.
leak  share that show the training picture's background or position though the prompt asks for
      another.
copy  share that look more like the training picture than like the right drawing, by the cosine of
      toy-vit's features; the right drawing is the renderer's own picture of the concept with what
      was prompted.

All are in [0, 1]. S*, TS* and ID* should be high, leak and copy low. Chance of ID* is how often
pictures of the world have both private attributes (`factors.chance`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tlora_cli.foundation.bundled import JudgedScore
from tlora_cli.toyworld.factors import DETAILS, PRIVATE

Values = Mapping[str, str]

LEAKS = ("background", "position")

SCORES = {
    "S*": JudgedScore(
        "share of pictures in other contexts on which all that was asked and all that is private "
        "is right at once",
        all_of=("TS*", "ID*"),
    ),
    "TS*": JudgedScore("share on which all that was asked is right"),
    "ID*": JudgedScore("share on which all that is private (marking and feature) is right"),
    "ID* (base prompt)": JudgedScore("the same on pictures of the base prompt"),
    "details": JudgedScore("share on which the details (eyes and shade) are right"),
    "leak": JudgedScore(
        "share that show the training picture's background or position though the prompt asks for "
        "another",
        less_is_better=True,
    ),
    "copy": JudgedScore(
        "share that are nearer to the training picture than to the right drawing",
        less_is_better=True,
    ),
}
"""Name in tables -> what it is, in the order of the tables."""


@dataclass(frozen=True)
class Rate:
    """A share with its 95% interval.

    Attributes:
        hits, count: how many of how many.
    """

    hits: int
    count: int

    @property
    def value(self) -> float:
        """The share; nan of nothing."""
        return self.hits / self.count if self.count else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of a share (Wilson 1927)."""
        if not self.count:
            return math.nan, math.nan
        z = 1.959964
        middle = (self.hits + z * z / 2) / (self.count + z * z)
        spread = (
            z
            * math.sqrt(self.hits * (self.count - self.hits) / self.count + z * z / 4)
            / (self.count + z * z)
        )
        return max(0.0, middle - spread), min(1.0, middle + spread)

    def __str__(self) -> str:
        """Return the share and its interval, e.g. `0.934 [0.909, 0.952]`."""
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}]"


def prompted_right(reading: Values, asked: Values) -> bool:
    """TS* of one picture: every prompted attribute is read as asked."""
    return all(reading[name] == value for name, value in asked.items())


def identity_right(reading: Values, concept: Values) -> bool:
    """ID* of one picture: both private attributes are the concept's."""
    return all(reading[name] == concept[name] for name in PRIVATE)


def details_right(reading: Values, concept: Values) -> bool:
    """Say of one picture whether both details are the concept's."""
    return all(reading[name] == concept[name] for name in DETAILS)


def wholly_right(reading: Values, asked: Values, concept: Values) -> bool:
    """S* of one picture: all that is prompted and all that is private is right."""
    return prompted_right(reading, asked) and identity_right(reading, concept)


def leaked(reading: Values, asked: Values, training: Values) -> bool:
    """Say whether background or position is the training picture's, against the prompt."""
    return any(
        name in asked and asked[name] != training[name] and reading[name] == training[name]
        for name in LEAKS
    )


def rate(answers: Sequence[bool]) -> Rate:
    """Return the share of True."""
    return Rate(sum(answers), len(answers))


def by_attribute(readings: Sequence[Values], asked: Sequence[Values]) -> dict[str, Rate]:
    """Return how often each prompted attribute is right, over the prompts that name it."""
    names = dict.fromkeys(name for one in asked for name in one)
    return {
        name: rate(
            [
                reading[name] == one[name]
                for reading, one in zip(readings, asked, strict=True)
                if name in one
            ]
        )
        for name in names
    }
