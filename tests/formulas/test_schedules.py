"""Rank schedules against the formula written out, and their controls."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from tlora_cli import RankSchedule
from tlora_cli.formulas.schedules import SCHEDULES


@pytest.mark.parametrize(("rank", "low"), [(64, 32), (64, 1), (10, 3), (128, 28), (7, 7)])
def test_linear_is_the_exact_formula(rank: int, low: int) -> None:
    schedule = RankSchedule(rank, low)
    exact = [(rank - low) * Fraction(1000 - t, 1000) // 1 + low for t in range(1001)]
    assert [schedule.active_rank(t) for t in range(1001)] == exact
    assert schedule.active_rank(torch.arange(1001)).tolist() == exact


@pytest.mark.parametrize("alpha", [0.5, 2.0, 3.0])
def test_exponent(alpha: float) -> None:
    schedule = RankSchedule(64, 16, alpha=alpha)
    for t in range(0, 1000, 7):
        assert schedule.active_rank(t) == math.floor(48 * ((1000 - t) / 1000) ** alpha) + 16


def test_fractional_timesteps_are_floored_not_rounded() -> None:
    schedule = RankSchedule(10, 1)
    # 9 (1000 - t) / 1000 is 8 at t = 111.11..., so the rank falls from 9 to 8 just after it.
    assert schedule.active_rank(111.1) == 9
    assert schedule.active_rank(111.2) == 8
    assert schedule.active_rank(torch.tensor([111.1, 111.2])).tolist() == [9, 8]
    assert schedule.active_rank(999.999) == 1


def test_mask_has_one_row_per_timestep() -> None:
    schedule = RankSchedule(4, 2)
    mask = schedule.mask(torch.tensor([0, 400, 999]))
    expected = [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
    assert torch.equal(mask, torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("kind", ["reversed", "random"])
def test_controls_have_the_mean_rank_of_linear(kind: str) -> None:
    t = torch.arange(1000)
    linear = RankSchedule(64, 32).active_rank(t)
    control = RankSchedule(64, 32, kind=kind).active_rank(t)
    assert sorted(control.tolist()) == sorted(linear.tolist())
    assert not torch.equal(control, linear)


def test_reversed_grows_with_noise() -> None:
    ranks = RankSchedule(64, 32, kind="reversed").active_rank(torch.arange(1000))
    assert ranks[0] == 32
    assert ranks[-1] == 64
    assert (ranks.diff() >= 0).all()


def test_random_is_a_function_of_the_seed() -> None:
    t = torch.arange(1000)
    first = RankSchedule(64, 32, kind="random", seed=1).active_rank(t)
    assert torch.equal(first, RankSchedule(64, 32, kind="random", seed=1).active_rank(t))
    assert not torch.equal(first, RankSchedule(64, 32, kind="random", seed=2).active_rank(t))


def test_cosine() -> None:
    schedule = RankSchedule(64, 32, kind="cosine")
    for t in range(0, 1000, 13):
        assert schedule.active_rank(t) == math.floor(
            32 * (1 + math.cos(math.pi * t / 1000)) / 2 + 32
        )


def test_step_and_piecewise_go_through_their_points() -> None:
    points = [(100, 8), (500, 4), (900, 1)]
    step = RankSchedule(8, 1, kind="step", points=points)
    assert [step.active_rank(t) for t in (0, 100, 499, 500, 899, 900, 999)] == [8, 8, 8, 4, 4, 1, 1]
    line = RankSchedule(8, 1, kind="piecewise", points=points)
    assert [line.active_rank(t) for t in (0, 100, 300, 500, 700, 900, 999)] == [8, 8, 6, 4, 2, 1, 1]


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_schedule_stays_within_its_ranks(kind: str) -> None:
    points = [(0, 16), (1000, 4)] if kind in ("step", "piecewise") else None
    schedule = RankSchedule(16, 4, kind=kind, points=points)
    ranks = schedule.active_rank(torch.linspace(0, 1000, 4001))
    assert ranks.min() >= 4
    assert ranks.max() <= 16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 4, "min_rank": 5}, "min_rank 5 must lie in 1..rank"),
        ({"rank": 4, "min_rank": 0}, "min_rank 0 must lie in 1..rank"),
        ({"rank": 4, "min_rank": 2, "kind": "wave"}, "unknown schedule kind 'wave'"),
        ({"rank": 4, "min_rank": 2, "kind": "step"}, "needs points"),
        ({"rank": 4, "min_rank": 2, "kind": "step", "points": [(5, 1), (5, 2)]}, "must rise"),
        ({"rank": 4, "min_rank": 2, "alpha": 0.0}, "must be a number above 0"),
        ({"rank": 4, "min_rank": 2, "alpha": math.nan}, "must be a number above 0"),
        ({"rank": 4, "min_rank": 2, "num_train_timesteps": 0}, "must lie in 1..100000"),
    ],
)
def test_impossible_schedules_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        RankSchedule(**settings)
