"""Shares and their intervals: by hand, and how often they cover a preference that is known."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_raters import PREFERENCE, Crowd, paper_study

from tlora_cli.study.shares import Answers, Share, share


def answers(values: list[float], left: list[int], raters: list[int], pairs: list[int]) -> Answers:
    whole = [np.array(one) for one in (raters, np.zeros(len(values), int), pairs)]
    return Answers(np.array(values, float), np.array(left, bool), *whole)


def simulate(times: int, seed: int, **how: float) -> list[Share]:
    crowd = Crowd(paper_study(), raters=12)
    draw = np.random.default_rng(seed)
    return [share(crowd.answers(draw, **how)) for _ in range(times)]  # type: ignore[arg-type]


def covered(found: list[Share]) -> float:
    return sum((one.low or 0) <= PREFERENCE <= (one.high or 0) for one in found) / len(found)


def mean(found: list[Share]) -> float:
    return float(np.mean([one.value for one in found]))


# --- coverage -------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("side", [0.0, 0.12])
def test_the_interval_covers_the_preference_as_often_as_it_says(side: float) -> None:
    found = simulate(1000, seed=1, side=side)
    assert 0.93 <= covered(found) <= 0.97
    assert abs(mean(found) - PREFERENCE) < 0.004


def test_a_small_sample_of_it() -> None:
    found = simulate(80, seed=2)
    assert 0.88 <= covered(found) <= 1
    assert abs(mean(found) - PREFERENCE) < 0.015
    assert all(one.tells for one in found[:20])


def test_a_leaning_to_one_side_moves_nothing_though_it_is_strong() -> None:
    plain, leaning = (simulate(40, seed=3, side=side) for side in (0.0, 0.12))
    assert abs(mean(plain) - mean(leaning)) < 0.012
    # What the two sides would have said alone lies a quarter apart.
    draw = np.random.default_rng(0)
    given = Crowd(paper_study(), 12).answers(draw, side=0.12)
    assert given.values[given.left].mean() - given.values[~given.left].mean() > 0.15


def test_coins_pull_the_share_to_one_half_so_they_must_be_found() -> None:
    assert mean(simulate(20, seed=4, careless=4)) == pytest.approx(0.632, abs=0.015)


# --- by hand --------------------------------------------------------------------------------------


def test_answers_of_one_rater_are_not_independent() -> None:
    """Two raters, one for and one against the first in everything, tell nothing together."""
    many = answers([1] * 50 + [0] * 50, [0, 1] * 50, [0] * 50 + [1] * 50, [*range(50)] * 2)
    found = share(many)
    assert found.value == 0.5 and found.low is not None and found.high is not None
    assert found.high - found.low > 0.9
    alone = share(answers([1, 0] * 50, [0, 1] * 50, [0, 1] * 50, list(range(100))))
    assert alone.low is not None


def test_sides_that_were_not_shown_equally_often_weigh_the_same() -> None:
    found = share(answers([1, 1, 1, 0], [1, 1, 1, 0], [0, 1, 2, 3], [0, 1, 2, 3]))
    assert found.value == 0.5


def test_no_difference_is_one_half() -> None:
    found = share(answers([0.5, 0.5, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1]))
    assert found.value == 0.75 and found.same == 0.5


def test_all_alike_is_no_certainty() -> None:
    found = share(answers([1] * 8, [0, 1] * 4, [0, 0, 1, 1, 2, 2, 3, 3], [0, 1] * 4))
    assert found.value == 1 and found.high == 1 and found.low is not None
    assert 0.3 < found.low < 0.5 and not found.tells  # two pairs


@pytest.mark.parametrize(
    ("values", "raters", "value"), [([], [], None), ([1.0], [0], 1.0), ([1.0, 1.0], [0, 0], 1.0)]
)
def test_too_few_answers_have_no_interval(
    values: list[float], raters: list[int], value: float | None
) -> None:
    found = share(answers(values, [1] * len(values), raters, [0] * len(values)))
    assert found.value == value and found.low is None and not found.tells


def test_what_the_interval_speaks_for() -> None:
    draw = np.random.default_rng(0)
    crowds = {
        "raters like these, and concepts like these": Crowd(paper_study(6), 4),
        "raters like these, and these concepts": Crowd(paper_study(3), 4),
        "this rater, and further pictures of this concept": Crowd(paper_study(1), 1),
    }
    for words, crowd in crowds.items():
        assert share(crowd.answers(draw)).speaks_for == words
