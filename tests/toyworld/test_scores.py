"""The scores on readings made by hand, their intervals, and what a suite asks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from tlora_cli.toyworld import scores, studio
from tlora_cli.toyworld.captions import ACCESSORY_WORDS, BACKGROUND_WORDS, POSITION_WORDS
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.factors import FACTORS, chance, is_held_out
from tlora_cli.toyworld.renderer import draw
from tlora_cli.toyworld.scores import Rate
from tlora_cli.toyworld.studio import Drawn
from tlora_cli.toyworld.suites import Task, base_prompt, base_tasks, contexts

PIP = CONCEPTS["pip"]
TRAINING = {
    "class": "star",
    "color": "orange",
    "background": "snow",
    "position": "left",
    "accessory": "none",
    "marking": "dark stripes",
    "feature": "boots",
}
ASKED = {"class": "star", "background": "beach", "position": "right", "accessory": "hat"}
RIGHT = {**TRAINING, **ASKED}


def read(**wrong: str) -> dict[str, str]:
    """Return the reading of the right picture, with some attributes wrong."""
    return {**RIGHT, **wrong}


# --- one picture ----------------------------------------------------------------------------------


def test_ts_wants_every_prompted_attribute() -> None:
    assert scores.prompted_right(read(), ASKED)
    for name in ASKED:
        assert not scores.prompted_right(read(**{name: "other"}), ASKED), name
    for name in ("color", "marking", "feature"):
        assert scores.prompted_right(read(**{name: "other"}), ASKED), f"{name} is not asked for"


def test_ts_counts_an_accessory_that_nobody_asked_for() -> None:
    assert not scores.prompted_right(read(), {**ASKED, "accessory": "none"})


def test_id_wants_both_private_attributes_and_nothing_else() -> None:
    concept = PIP.values
    assert scores.identity_right(read(), concept)
    assert not scores.identity_right(read(marking="light stripes"), concept)
    assert not scores.identity_right(read(feature="none"), concept)
    others = {name: "other" for name in ("class", "color", "background", "position", "accessory")}
    assert scores.identity_right(read(**others), concept)


def test_s_wants_what_is_asked_and_what_is_private_in_the_same_picture() -> None:
    concept = PIP.values
    assert scores.wholly_right(read(), ASKED, concept)
    for name in (*ASKED, "marking", "feature"):
        assert not scores.wholly_right(read(**{name: "other"}), ASKED, concept), name
    assert scores.wholly_right(read(color="other"), ASKED, concept), "color is not asked for"


def test_leak_is_the_training_value_against_the_prompt() -> None:
    assert not scores.leaked(read(), ASKED, TRAINING)
    assert scores.leaked(read(background="snow"), ASKED, TRAINING)
    assert scores.leaked(read(position="left"), ASKED, TRAINING)
    assert not scores.leaked(read(background="city", position="center"), ASKED, TRAINING)
    assert not scores.leaked(read(accessory="none"), ASKED, TRAINING)


def test_what_the_prompt_leaves_open_or_asks_for_is_no_leak() -> None:
    same = read(background="snow", position="left")
    assert not scores.leaked(same, {"class": "star"}, TRAINING)
    assert not scores.leaked(same, {**ASKED, "background": "snow", "position": "left"}, TRAINING)
    assert scores.leaked(same, {**ASKED, "background": "snow"}, TRAINING)


# --- many pictures --------------------------------------------------------------------------------


def flat(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Stand in for toy-vit: the pixels themselves, of length 1."""
    stacked = np.stack([np.asarray(picture, dtype=np.float32) - 128 for picture in pictures])
    return torch.nn.functional.normalize(torch.from_numpy(stacked).flatten(1), dim=-1)


def test_all_five_scores_of_drawn_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio.reading, "features", flat)
    training = PIP.scenes()[0]
    drawn = []
    for number, task in enumerate(contexts(PIP, 10)):
        right = training.changed(**task.asked)
        shown = training if number < 3 else right
        values = {**shown.values, "marking": "none"} if number == 9 else shown.values
        drawn.append(Drawn(task, draw(shown).image, values))
    assert studio.prompted(drawn) == Rate(7, 10)
    assert studio.identity(drawn, PIP) == Rate(9, 10)
    assert studio.success(drawn, PIP) == Rate(6, 10), "three fail the prompt, another the marking"
    assert studio.leak(drawn, training) == Rate(3, 10)
    assert studio.copies(drawn, training) == Rate(3, 10)


def test_scores_by_attribute() -> None:
    readings = [read(), read(position="left"), read(background="snow")]
    rates = scores.by_attribute(readings, [ASKED, ASKED, {"background": "beach"}])
    assert rates == {
        "class": Rate(2, 2),
        "background": Rate(2, 3),
        "position": Rate(1, 2),
        "accessory": Rate(2, 2),
    }
    with pytest.raises(ValueError, match="zip"):
        scores.by_attribute(readings, [ASKED])


@pytest.mark.parametrize("count", [1, 5, 48, 500])
def test_intervals_are_wilsons(count: int) -> None:
    for hits in {0, 1, count // 3, count - 1, count}:
        expected = binomtest(hits, count).proportion_ci(method="wilson")
        found = scores.rate([True] * hits + [False] * (count - hits))
        assert found.value == hits / count
        assert found.interval == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_rates_are_printed_with_their_interval() -> None:
    low, high = binomtest(467, 500).proportion_ci(method="wilson")
    assert str(Rate(467, 500)) == f"0.934 [{low:.3f}, {high:.3f}]"


def test_a_rate_of_nothing_is_no_number() -> None:
    assert math.isnan(scores.rate([]).value)
    assert all(math.isnan(end) for end in scores.rate([]).interval)


def test_chance_of_every_identity() -> None:
    assert chance("none", "none") == 0.25
    assert chance("dark dots", "none") == pytest.approx(0.5 / 6 * 0.5)
    for concept in CONCEPTS.values():
        assert chance(concept.marking, concept.feature) == pytest.approx(1 / 72)


# --- suites ---------------------------------------------------------------------------------------

WORDS = {"background": BACKGROUND_WORDS, "position": POSITION_WORDS, "accessory": ACCESSORY_WORDS}


@pytest.mark.parametrize("name", CONCEPTS)
def test_contexts_ask_for_something_else(name: str) -> None:
    concept = CONCEPTS[name]
    for training in concept.scenes():
        tasks = contexts(concept, 48, training, seed=3)
        assert [task.seed for task in tasks] == list(range(3, 51))
        for task in tasks:
            assert task.asked.keys() == {"class", *WORDS}
            assert task.asked["class"] == concept.class_name
            assert task.text.startswith("a photo of a V*, ")
            for factor, table in WORDS.items():
                assert task.asked[factor] not in (training[factor], "none")
                assert table[task.asked[factor]][0] in task.text


def test_contexts_are_by_default_other_than_the_first_picture() -> None:
    assert contexts(PIP, 20) == contexts(PIP, 20, PIP.scenes()[0])


@pytest.mark.parametrize("count", [7, 48])
def test_contexts_ask_for_each_value_equally_often(count: int) -> None:
    training = PIP.scenes()[1]
    tasks = contexts(PIP, count, training)
    assert len(tasks) == count
    for factor in WORDS:
        found = Counter(task.asked[factor] for task in tasks)
        assert found.keys() == set(FACTORS[factor]) - {training[factor], "none"}
        assert max(found.values()) - min(found.values()) <= 1


def test_suites_depend_on_their_seed_alone() -> None:
    assert contexts(PIP, 24, seed=1) == contexts(PIP, 24, seed=1)
    assert base_tasks(24, True, 1) == base_tasks(24, True, 1)

    def asked(tasks: list[Task]) -> list[dict[str, str]]:
        return [task.asked for task in tasks]

    assert asked(contexts(PIP, 24, seed=1)) != asked(contexts(PIP, 24, seed=2))
    assert asked(base_tasks(24, True, 1)) != asked(base_tasks(24, True, 2))


@pytest.mark.parametrize("held_out", [True, False])
def test_base_tasks_name_all_factors_of_one_kind(held_out: bool) -> None:
    tasks = base_tasks(100, held_out)
    assert len({task.seed for task in tasks}) == 100
    for task in tasks:
        assert task.asked.keys() == FACTORS.keys()
        assert is_held_out(task.asked) == held_out
        assert f"{task.asked['color']} {task.asked['class']}" in task.text
        for factor, table in WORDS.items():
            assert table[task.asked[factor]][0] in task.text


def test_the_base_prompt_asks_for_the_class_only() -> None:
    tasks = base_prompt(PIP, 4, seed=7)
    assert {task.text for task in tasks} == {"a photo of a V*"}
    assert [task.seed for task in tasks] == [7, 8, 9, 10]
    assert all(task.asked == {"class": "star"} for task in tasks)
