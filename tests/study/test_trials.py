"""The trials of raters: sides and order are balanced; and the checks find who doesn't look."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from simulated_raters import checked, paper_study

from tlora_cli.study.trials import AGAIN, APART, EQUAL, PAIR, trials_of

STUDY = paper_study()
FOUR = replace(
    STUDY, pairs=tuple(replace(one, other=1 + n % 3) for n, one in enumerate(STUDY.pairs))
)


@pytest.mark.parametrize("number", range(4))
def test_a_rater_sees_each_method_on_both_sides_alike(number: int) -> None:
    trials = [one for one in trials_of(FOUR, number) if one.kind == PAIR]
    assert len(trials) == 60 and len({one.pair for one in trials}) == 60
    for other in (1, 2, 3):
        own = [one for one in trials if FOUR.pairs[one.pair].other == other]
        assert abs(2 * sum(one.first_left for one in own) - len(own)) <= 1
    strata = Counter((FOUR.pairs[t.pair].other, FOUR.pairs[t.pair].concept) for t in trials)
    assert len(strata) == 30 and set(strata.values()) == {2}
    for trial in trials:
        pair = FOUR.pairs[trial.pair]
        assert (trial.left, trial.right) == (
            (pair.first, pair.second) if trial.first_left else (pair.second, pair.first)
        )


def test_two_raters_see_the_same_pairs_on_opposite_sides_in_another_order() -> None:
    one, two = ([t for t in trials_of(STUDY, n) if t.kind == PAIR] for n in (2, 3))
    assert {t.pair: t.first_left for t in one} == {t.pair: not t.first_left for t in two}
    assert [t.pair for t in one] != [t.pair for t in two]


def test_all_pairs_get_as_many_answers() -> None:
    seen = Counter(t.pair for n in range(10) for t in trials_of(STUDY, n) if t.kind == PAIR)
    assert len(seen) == 300 and set(seen.values()) == {2}


@pytest.mark.parametrize("number", range(20))
def test_pairs_come_again_later_on_the_other_sides(number: int) -> None:
    trials = trials_of(STUDY, number)
    again = [one for one in trials if one.kind == AGAIN]
    assert len(again) == 6 and len([one for one in trials if one.kind == EQUAL]) == 4
    first = {one.pair: one for one in trials if one.kind == PAIR}
    for one in again:
        assert one.position - first[one.pair].position > APART
        assert (one.left, one.right) == (first[one.pair].right, first[one.pair].left)
    for one in trials:
        assert (one.left == one.right) == (one.kind == EQUAL)
    assert [one.position for one in trials] == list(range(70))


@pytest.mark.parametrize("total", [1, 2, 7])
def test_a_study_of_few_pairs(total: int) -> None:
    study = paper_study(concepts=1, each=total, total=total)
    for number in range(3):
        trials = trials_of(study, number)
        again = [one for one in trials if one.kind == AGAIN]
        assert len(again) == min(total, 6)
        first = {one.pair: one.position for one in trials if one.kind == PAIR}
        assert all(one.position > first[one.pair] for one in again)


def test_a_rater_has_the_same_trials_whenever_they_are_asked_for() -> None:
    assert trials_of(STUDY, 5) == trials_of(STUDY, 5)
    assert trials_of(replace(STUDY, seed=1), 5) != trials_of(STUDY, 5)


# --- checks of raters -----------------------------------------------------------------------------


def test_careless_raters_are_flagged_and_careful_ones_are_not() -> None:
    for kind in ("coin", "left"):
        assert all(checked(STUDY, number, kind).careless for number in range(50)), kind
    careful = [checked(STUDY, number, "careful") for number in range(100)]
    assert sum(one.careless for one in careful) <= 1
    leaning = [checked(STUDY, number, "leaning") for number in range(100)]
    assert sum(one.careless for one in leaning) <= 5


def test_why_a_rater_is_flagged_is_said() -> None:
    words = "; ".join(checked(STUDY, 0, "left").reasons)
    assert "answered 0% of what came again as before" in words
    assert "saw a difference in 100% of identical pictures" in words
    assert "chose the left side in 100% of the answers" in words
