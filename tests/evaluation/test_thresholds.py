"""The threshold between real and mismatched pairs, against a search through all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tlora_cli.evaluation.thresholds import Threshold, separate


def found(real: list[float], mismatched: list[float]) -> Threshold | None:
    return separate(torch.tensor(real), torch.tensor(mismatched))


def test_pairs_that_lie_apart_are_parted_in_the_middle() -> None:
    threshold = found([0.8, 0.9], [0.2, 0.4, 0.3])
    assert threshold is not None
    assert threshold.value == pytest.approx(0.6)
    assert (threshold.real, threshold.mismatched) == (2, 3)
    assert (threshold.missed, threshold.passed, threshold.accuracy) == (0, 0, 1)


def test_both_sides_count_the_same_however_many_pairs_they_have() -> None:
    """By hand: at 0.55 one of two real pairs is missed and none of ten passes, at 0.35 one passes.

    Errors are 0.5 + 0 and 0 + 0.1, so 0.35 is better; counted pair by pair both would be one.
    """
    threshold = found([0.4, 0.6], [0.1] * 8 + [0.3, 0.5])
    assert threshold is not None
    assert threshold.value == pytest.approx(0.35)
    assert (threshold.missed, threshold.passed) == (0, pytest.approx(0.1))
    assert threshold.accuracy == pytest.approx(0.95)


def test_of_equally_good_ones_the_highest_is_taken() -> None:
    """By hand: 0.25 and 0.45 have one of two on the wrong side each (0.5); 0.35 has two (1)."""
    threshold = found([0.3, 0.5], [0.2, 0.4])
    assert threshold is not None
    assert threshold.value == pytest.approx(0.45)
    assert (threshold.missed, threshold.passed) == (0.5, 0)


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    real, mismatched = rng.normal(0.6, 0.2, 12).round(1), rng.normal(0.4, 0.2, 40).round(1)
    threshold = separate(torch.from_numpy(real), torch.from_numpy(mismatched))
    assert threshold is not None and threshold.accuracy is not None
    assert threshold.missed == pytest.approx((real < threshold.value).mean())
    assert threshold.passed == pytest.approx((mismatched >= threshold.value).mean())
    best = max(
        ((real >= v).mean() + (mismatched < v).mean()) / 2 for v in np.linspace(-0.55, 1.55, 22)
    )
    assert threshold.accuracy == pytest.approx(best)


def test_what_is_no_number_is_left_out() -> None:
    threshold = found([0.8, math.nan, 0.9], [0.2, math.inf, math.nan])
    assert threshold is not None
    assert (threshold.real, threshold.mismatched) == (2, 1)
    assert threshold.value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("real", "mismatched"),
    [([], [0.1]), ([0.1], []), ([], []), ([math.nan], [0.1]), ([0.5, 0.5], [0.5])],
)
def test_without_pairs_there_is_no_threshold(real: list[float], mismatched: list[float]) -> None:
    assert found(real, mismatched) is None


def test_a_given_threshold_claims_nothing() -> None:
    given = Threshold(0.3)
    assert (given.real, given.missed, given.passed, given.accuracy) == (0, None, None, None)
