"""Krippendorff's alpha: agreement between raters beyond chance, whoever has answered what.

Krippendorff 2011, "Computing Krippendorff's alpha-reliability": alpha = 1 - D_o / D_e, the observed
disagreement over the one that chance would give. A unit that one rater alone has answered says
nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Labels = NDArray[np.int64]


def squared(one: Numbers, other: Numbers) -> Numbers:
    """Return the distance of values on an interval scale: first, no difference, second."""
    distance: Numbers = (one - other) ** 2
    return distance


def unequal(one: Numbers, other: Numbers) -> Numbers:
    """Return the distance of values that are mere names."""
    return np.asarray(one != other, dtype=np.float64)


def alpha(
    values: Numbers,
    units: Labels,
    distance: Callable[[Numbers, Numbers], Numbers] = squared,
) -> float | None:
    """Return alpha: 1 for agreement in everything, 0 for chance, below 0 for less.

    Args:
        values: (n,), the answers.
        units: (n,), what each is about; each rater answers once about a unit.
        distance: of two values.

    Returns:
        None if no unit has two answers, or all answers are the same, when chance agrees as well.
    """
    kinds, value = np.unique(values, return_inverse=True)
    _, unit = np.unique(units, return_inverse=True)
    counts = np.zeros((int(unit.max(initial=-1)) + 1, len(kinds)))
    np.add.at(counts, (unit, value), 1)
    counts = counts[counts.sum(1) > 1]
    if not len(counts):
        return None
    # o[c, k]: pairs of answers c and k within a unit, each unit weighing as many as it has answers.
    weights = 1 / (counts.sum(1) - 1)
    coincidences = (counts.T * weights) @ counts - np.diag((counts.T * weights).sum(1))
    totals = coincidences.sum(1)
    apart = distance(kinds[:, None], kinds[None, :])
    expected = (np.outer(totals, totals) - np.diag(totals)) / (totals.sum() - 1)
    chance = float((expected * apart).sum())
    if chance == 0:
        return None
    return 1 - float((coincidences * apart).sum()) / chance
