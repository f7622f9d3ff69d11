"""Two methods at the same likeness, though no two runs have the same.

Over the steps of its training a method goes from following every prompt to drawing the picture
again. Where that curve passes another arm's likeness, the two are compared: how much more the other
follows prompts, or leaks, than the curve's method does when it is just as alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laboratory.claims import CURVE
from laboratory.results import Pick, Results
from laboratory.verdicts import Claim
from tlora_cli.comparison.bootstrap import ENDS, Interval, resampled_means

COMPARED = ("S*", "TS*", "leak")
"""Metrics that are compared at the same likeness, as far as the runs have them."""
WITHIN = 0.95
"""Share of the resamples that must have a match, for an interval to be given."""

Array = NDArray[np.float64]
Arm = tuple[Results, Pick]
"""An arm of a grid."""


@dataclass(frozen=True)
class Match:
    """An arm beside a curve, where they are equally alike.

    Attributes:
        likeness: mean of the arm.
        value: mean of the arm's metric.
        on_curve: the curve's metric at that likeness; None if it never is so alike, or so little.
        difference: arm less curve; None likewise. Without ends if too few resamples have a match.
    """

    likeness: float
    value: float
    on_curve: float | None
    difference: Interval | None


def match(arm: Arm, curve: Sequence[Arm], likeness: str, metric: str) -> Match | None:
    """Compare an arm with a curve where both are equally alike; None if anything is not finished.

    The curve is linear between the means of its arms and ends where it is most alike: what comes
    after is overfitting, and would make the match ambiguous. Resamples draw pairs of concept and
    seed, the same for the arm and the curve.

    Args:
        arm: what is compared.
        curve: arms of one method, of rising steps; of another grid, too.
        likeness: metric that is matched.
        metric: metric that is compared.
    """
    arms = [arm, *curve]
    x, y = ([found.values(one, name) for found, one in arms] for name in (likeness, metric))
    pairs = [pair for pair in x[0] if all(pair in one for one in [*x, *y])]
    if not pairs:
        return None
    alike, value = (np.array([[one[pair] for one in each] for pair in pairs]) for each in (x, y))
    end = int(alike[:, 1:].mean(0).argmax()) + 2
    alike, value = alike[:, :end], value[:, :end]
    on_curve = float(_on_curve(alike.mean(0)[None], value.mean(0)[None])[0])
    own = Match(float(alike[:, 0].mean()), float(value[:, 0].mean()), None, None)
    if np.isnan(on_curve):
        return own
    means = resampled_means(value)
    differences = means[:, 0] - _on_curve(resampled_means(alike), means)
    known = differences[~np.isnan(differences)]
    low, high = np.quantile(known, ENDS) if len(known) >= WITHIN * len(differences) else (None,) * 2
    difference = Interval(own.value - on_curve, low, high, len(pairs))
    return Match(own.likeness, own.value, on_curve, difference)


def curve_of(results: Results) -> list[Arm]:
    """Return T-LoRA's curve from the grid that has it."""
    return [(results, arm) for arm in CURVE.values()]


def apart(claim: Claim, results: Results, curve: Results) -> Mapping[str, Pick]:
    """Return a claim's arms whose runs are not those of the curve."""
    over = curve_of(curve)
    return {
        label: arm for label, arm in claim.arms.items() if not is_of((results, arm), over, "TS*")
    }


def is_of(arm: Arm, curve: Sequence[Arm], metric: str) -> bool:
    """Return whether an arm's runs are those of one of the curve's arms."""
    results, pick = arm
    own = results.values(pick, metric)
    return any(found.values(one, metric) == own for found, one in curve)


def _on_curve(alike: Array, value: Array) -> Array:
    """Return the curve's value at the likeness of the first column; NaN outside of the curve.

    Both arrays are (resamples, 1 + arms of the curve).
    """
    found = np.empty(len(alike))
    for row, (x, y) in enumerate(zip(alike, value, strict=True)):
        order = np.argsort(x[1:], kind="stable")
        found[row] = np.interp(x[0], x[1:][order], y[1:][order], left=np.nan, right=np.nan)
    return found
