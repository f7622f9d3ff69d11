"""Bootstrap intervals of means, and of paired differences.

What is drawn again are the pairs of (concept, seed), each with all that was measured on it: the
pictures of one run are not independent. All resamples of the same number of pairs draw the same
places, so differences are paired by being taken before resampling.

Percentile intervals: Efron and Tibshirani 1993, chapter 13. With few pairs they are too narrow; of
one pair there is none, and with fewer than `LEAST_PAIRS` none is taken as evidence.

`scipy.stats.bootstrap` draws the same resamples of the same seed, but its ends differ from these in
the last digit in 24 of 40 cases (it interpolates at 100 (1 - 0.95) / 2, which is not 2.5), it takes
four times as long, and the laboratory needs the resampled means of several columns themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
SEED = 0
ENDS = (0.025, 0.975)
"""Quantiles between which 95% of the resampled means lie."""
LEAST_PAIRS = 6
"""Pairs from which on differences have one sign by chance in less than 5% of the cases."""


@dataclass(frozen=True)
class Interval:
    """A mean over pairs, and its 95% interval.

    Attributes:
        mean: of the pairs.
        low, high: ends of the interval; None for a single pair.
        count: pairs.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def tells(self) -> bool:
        """Whether the whole interval is on one side of zero, and of enough pairs."""
        if self.low is None or self.high is None or self.count < LEAST_PAIRS:
            return False
        return self.low > 0 or self.high < 0


def interval(values: NDArray[np.float64]) -> Interval:
    """Return the mean of one value a pair, with its bootstrap interval.

    Args:
        values: (pairs,), at least one.
    """
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, None, None, len(values))
    low, high = np.quantile(resampled_means(values), ENDS)
    return Interval(mean, float(low), float(high), len(values))


def resampled_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over pairs in every resample, (RESAMPLES,) or (RESAMPLES, k).

    Args:
        values: (pairs,) or (pairs, k); columns are drawn together.
    """
    means: NDArray[np.float64] = values[_places(len(values))].mean(1)
    return means


def paired_difference(values: NDArray[np.float64], baseline: NDArray[np.float64]) -> Interval:
    """Return the mean difference to the baseline, with its paired bootstrap interval.

    Args:
        values: (pairs,), one value a pair.
        baseline: (pairs,), of the same pairs in the same order.
    """
    return interval(values - baseline)


@lru_cache(maxsize=8)
def _places(count: int) -> NDArray[np.int64]:
    """Return which pairs each resample draws, (RESAMPLES, count)."""
    return np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))
