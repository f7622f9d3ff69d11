"""Captions: what they name, and what they never name."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tlora_cli.toyworld.captions import (
    ACCESSORY_WORDS,
    BACKGROUND_WORDS,
    POSITION_WORDS,
    RARE_WORDS,
    caption,
    prompt,
    vocabulary,
)
from tlora_cli.toyworld.factors import (
    FACTORS,
    PRIVATE,
    Scene,
    draw_factors,
    draw_scene,
)

PLAIN = {
    "class": "cat",
    "color": "red",
    "background": "meadow",
    "position": "center",
    "accessory": "none",
    "marking": "none",
    "feature": "none",
}


def scenes(count: int, held_out: bool | None = None) -> list[Scene]:
    rng = random.Random("world")
    return [draw_scene(rng, held_out) for _ in range(count)]


SECRETS = {word for known in PRIVATE.values() for value in known[1:] for word in value.split()}
VARIANTS = {"stripe", "striped", "dot", "dotted", "wing", "winged", "antenna", "boot", "lit"}


def words(text: str) -> set[str]:
    return set(text.replace(",", " ").split())


def test_captions_never_name_a_private_attribute_that_is_not_there() -> None:
    assert {"stripes", "dots", "sash", "wings", "antennae", "boots", "light", "dark"} == SECRETS
    rng = random.Random(0)
    used: set[str] = set()
    for number in range(20_000):
        used |= words(caption(draw_factors(rng), rng, complete=number % 4 == 0))
    assert not used & (SECRETS | VARIANTS | {"none"})
    assert used == set(vocabulary()) - SECRETS - {"and"}


def test_complete_captions_name_every_factor_and_nothing_else() -> None:
    rng = random.Random(0)
    tables = {
        "background": BACKGROUND_WORDS,
        "position": POSITION_WORDS,
        "accessory": ACCESSORY_WORDS,
    }
    for _ in range(2000):
        values = draw_factors(rng)
        text = caption(values, rng, complete=True)
        assert words(text) & set(FACTORS["class"]) == {values["class"]}
        assert f"{values['color']} {values['class']}" in text
        for name, table in tables.items():
            named = {v for v, known in table.items() if any(one and one in text for one in known)}
            assert named == {values[name]} - {"none"}, text


def test_other_captions_leave_things_out_and_vary() -> None:
    rng = random.Random(0)
    values = {**PLAIN, "accessory": "hat"}
    texts = [caption(values, rng) for _ in range(2000)]
    assert len(set(texts)) > 500
    assert all("cat" in words(text) for text in texts)
    assert 0.87 < np.mean(["red" in words(text) for text in texts]) < 0.93
    assert 0.08 < np.mean([bool(words(text) & set(RARE_WORDS)) for text in texts]) < 0.12
    assert caption(values, random.Random(3)) == caption(values, random.Random(3))


@pytest.mark.parametrize(
    ("values", "subject", "text"),
    [
        (
            {"class": "cat", "color": "orange", "background": "night sky", "position": "left",
             "accessory": "hat"},
            None,
            "a photo of an orange cat, wearing a hat, under the night sky, on the left",
        ),
        ({"class": "ghost"}, None, "a photo of a ghost"),
        (
            {"class": "star", "color": "white", "background": "tiles", "accessory": "none"},
            None,
            "a photo of a white star, on pink tiles",
        ),
        (
            {"background": "snow", "position": "right", "accessory": "flag"},
            "a V*",
            "a photo of a V*, holding a flag, in the snow, on the right",
        ),
    ],
)  # fmt: skip
def test_prompts(values: dict[str, str], subject: str | None, text: str) -> None:
    assert prompt(values, subject) == text


def test_every_factor_value_has_words() -> None:
    assert BACKGROUND_WORDS.keys() == set(FACTORS["background"])
    assert POSITION_WORDS.keys() == set(FACTORS["position"])
    assert ACCESSORY_WORDS.keys() == set(FACTORS["accessory"])
