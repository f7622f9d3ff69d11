"""Krippendorff's alpha, against the example he publishes."""

from __future__ import annotations

import numpy as np
import pytest

from tlora_cli.study.agreement import alpha, squared, unequal

NONE = np.nan
# Four observers, twelve units: Krippendorff 2011, "Computing Krippendorff's alpha-reliability", C.
EXAMPLE = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
        [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
    ]
)


def test_the_published_example() -> None:
    rater, unit = np.nonzero(~np.isnan(EXAMPLE))
    values = EXAMPLE[rater, unit]
    assert alpha(values, unit, unequal) == pytest.approx(0.743, abs=5e-4)
    assert alpha(values, unit, squared) == pytest.approx(0.849, abs=5e-4)


def test_agreement_chance_and_contradiction() -> None:
    units = np.repeat(np.arange(400), 2)
    same = np.repeat(np.arange(400) % 2, 2).astype(float)
    assert alpha(same, units) == 1
    against = np.tile([0.0, 1.0], 400)
    assert alpha(against, units) == pytest.approx(-1, abs=0.01)
    coins = np.random.default_rng(0).integers(0, 2, 800).astype(float)
    assert abs(alpha(coins, units) or 1) < 0.12


def test_where_nothing_can_be_said() -> None:
    assert alpha(np.array([]), np.array([], dtype=np.int64)) is None
    assert alpha(np.array([1.0, 0.0]), np.array([0, 1])) is None  # each by one rater
    assert alpha(np.ones(4), np.array([0, 0, 1, 1])) is None  # all alike
