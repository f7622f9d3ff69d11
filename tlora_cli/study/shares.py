"""The share of answers that prefer a method, and its 95% interval, from votes that depend.

Answers of one rater are not independent, nor are answers about one concept; so the variance is
clustered both ways (Cameron, Gelbach and Miller 2011, eq. 2.12: by rater, plus by concept, minus by
both). The interval is Wilson's at the effective number of answers that this variance amounts to
(Korn and Graubard 1998), with Student's t, whose degrees of freedom are Satterthwaite's.

The share is the mean of two: over answers with the method on the left, and on the right. A rater
who takes one side where nothing tells the pictures apart so moves it in neither direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
LEAST_CONCEPTS = 5
"""Concepts from which on they are taken as a sample of concepts; with fewer, the pairs of pictures
are the sample, and the interval speaks of these concepts only."""

Numbers = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """Answers to one question on one comparison, each about a pair of pictures.

    Attributes:
        values: (n,), 1 for the first method, 0 for the second, 0.5 for no difference.
        left: (n,), whether the first method stood on the left.
        raters, concepts, pairs: (n,), who answered about what, as whole numbers from 0 on.
    """

    values: Numbers
    left: NDArray[np.bool_]
    raters: Labels
    concepts: Labels
    pairs: Labels


@dataclass(frozen=True)
class Share:
    """The share that prefers the first method.

    Attributes:
        value: 0 to 1; None without answers.
        low, high: ends of the 95% interval; None if one rater answered about one pair.
        answers, raters, concepts: how many.
        same: share of answers that saw no difference; they count half for each method.
        speaks_for: what the interval generalizes to, in words.
    """

    value: float | None
    low: float | None
    high: float | None
    answers: int
    raters: int
    concepts: int
    same: float
    speaks_for: str

    @property
    def tells(self) -> bool:
        """Whether the whole interval lies on one side of one half."""
        if self.low is None or self.high is None:
            return False
        return self.low > 0.5 or self.high < 0.5


def share(given: Answers) -> Share:
    """Return the share of answers that prefer the first method, with its interval."""
    count = len(given.values)
    raters, concepts = (len(np.unique(one)) for one in (given.raters, given.concepts))
    same = float((given.values == 0.5).mean()) if count else 0.0
    things = given.concepts if concepts >= LEAST_CONCEPTS else given.pairs
    kinds = [one for one in (given.raters, things) if len(np.unique(one)) > 1]
    speaks = _speaks_for(raters, concepts)
    if not count or not kinds:
        value = float(given.values.mean()) if count else None
        return Share(value, None, None, count, raters, concepts, same, speaks)
    value, influence = _two_sides(given)
    variance, freedom, least = _clustered(influence, kinds)
    low, high = _wilson(value, variance, freedom, least)
    return Share(value, low, high, count, raters, concepts, same, speaks)


def _two_sides(given: Answers) -> tuple[float, Numbers]:
    """Return the mean of the shares on both sides, and each answer's part in its error."""
    influence = np.zeros(len(given.values))
    sides = [side for side in (given.left, ~given.left) if side.any()]
    value = 0.0
    for side in sides:
        mean = given.values[side].mean()
        value += float(mean) / len(sides)
        influence[side] = (given.values[side] - mean) / (side.sum() * len(sides))
    return value, influence


def _clustered(influence: Numbers, kinds: list[Labels]) -> tuple[float, float, int]:
    """Return the variance of a sum whose parts depend within clusters of one or two kinds.

    Returns:
        The variance, its degrees of freedom, and the number of clusters of the rarest kind.
    """
    labels = [np.unique(one, return_inverse=True)[1] for one in kinds]
    parts = [_within(influence, one) for one in labels]
    sizes = [int(one.max()) + 1 for one in labels]
    total = sum(parts)
    if len(labels) == 2:
        both = np.unique(labels[0] * sizes[1] + labels[1], return_inverse=True)[1]
        # By chance the difference may fall below what each kind explains alone, even below zero.
        total = max(total - _within(influence, both), min(parts))
    spread = sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True))
    freedom = total**2 / spread if spread else float(min(sizes) - 1)
    return total, max(freedom, min(sizes) - 1.0), min(sizes)


def _within(influence: Numbers, labels: Labels) -> float:
    """Return the variance between clusters, with the correction for their number."""
    sums = np.bincount(labels, influence)
    return float((sums**2).sum()) * len(sums) / max(1, len(sums) - 1)


def _wilson(value: float, variance: float, freedom: float, least: int) -> tuple[float, float]:
    """Return Wilson's interval at the effective number of answers.

    Where all answers agree there is no variance to see; then each cluster of the rarest kind counts
    as one answer, and nothing is estimated that Student's t would have to make up for.
    """
    from scipy.stats import norm, t

    if variance > 0 and 0 < value < 1:
        quantile = float(t.ppf((1 + LEVEL) / 2, freedom))
        effective = value * (1 - value) / variance
    else:
        quantile, effective = float(norm.ppf((1 + LEVEL) / 2)), float(least)
    square = quantile**2 / effective
    center = (value + square / 2) / (1 + square)
    root = ((value * (1 - value) + square / 4) / effective) ** 0.5
    half = quantile / (1 + square) * root
    return max(0.0, center - half), min(1.0, center + half)


def _speaks_for(raters: int, concepts: int) -> str:
    """Return what the clusters are a sample of."""
    who = "raters like these" if raters > 1 else "this rater"
    what = "concepts like these"
    if concepts < LEAST_CONCEPTS:
        what = "further pictures of this concept" if concepts == 1 else "these concepts"
    return f"{who}, and {what}"
