"""Details, which no caption names, and captions that name markings and features at times."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest

from tlora_cli.toyworld.captions import caption, prompt, vocabulary
from tlora_cli.toyworld.factors import (
    DETAILS,
    FACTORS,
    Pose,
    Scene,
    draw_scene,
)
from tlora_cli.toyworld.renderer import draw

PLAIN = {
    "class": "cat",
    "color": "red",
    "background": "meadow",
    "position": "center",
    "accessory": "none",
    "marking": "none",
    "feature": "none",
}
WORDS = {"stripes", "dots", "sash", "wings", "antennae", "boots", "light", "dark"}


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(draw(scene).image).astype(int)


def words(text: str) -> set[str]:
    return set(text.replace(",", " ").split())


# --- details --------------------------------------------------------------------------------------


def test_a_detail_left_out_has_its_first_value() -> None:
    bare = Scene(PLAIN)
    first = {name: known[0] for name, known in DETAILS.items()}
    assert {name: bare[name] for name in DETAILS} == first
    assert (pixels(bare) == pixels(Scene({**PLAIN, **first}))).all()


def test_an_unknown_detail_is_refused() -> None:
    with pytest.raises(ValueError, match="eyes is 'square'; known: round, dark, sleepy"):
        Scene({**PLAIN, "eyes": "square"})


@pytest.mark.parametrize("name", DETAILS)
def test_details_show_on_every_class_and_color(name: str) -> None:
    for cls in FACTORS["class"]:
        for color in FACTORS["color"]:
            scene = Scene({**PLAIN, "class": cls, "color": color})
            drawn = [pixels(scene.changed(**{name: value})) for value in DETAILS[name]]
            for one, two in combinations(drawn, 2):
                assert (np.abs(one - two).max(2) > 30).sum() >= 6, (name, cls, color)


@pytest.mark.parametrize("name", DETAILS)
def test_details_change_the_subject_alone(name: str) -> None:
    scene = Scene(PLAIN, Pose(angle=5), texture=3)
    outside = np.asarray(draw(scene).mask) == 0
    for value in DETAILS[name][1:]:
        other = scene.changed(**{name: value})
        assert (np.asarray(draw(other).mask) == np.asarray(draw(scene).mask)).all()
        assert (pixels(scene) == pixels(other))[outside].all()


def test_details_are_drawn_evenly() -> None:
    rng = random.Random(0)
    drawn = [draw_scene(rng) for _ in range(2000)]
    for name, known in DETAILS.items():
        for value in known:
            share = np.mean([scene[name] == value for scene in drawn])
            assert abs(share - 1 / len(known)) < 0.04, value


# --- captions -------------------------------------------------------------------------------------


def captions(count: int, values: dict[str, str]) -> list[str]:
    rng = random.Random(0)
    return [caption(values, rng) for _ in range(count)]


def test_captions_name_private_attributes_at_times() -> None:
    texts = captions(3000, {**PLAIN, "marking": "light dots", "feature": "wings"})
    marking = np.array(["light dots" in text for text in texts])
    feature = np.array(["wings" in words(text) for text in texts])
    for one in (marking, feature):
        assert 0.57 < one.mean() < 0.63
    assert 0.33 < (marking & feature).mean() < 0.39, "one does not depend on the other"
    assert any("with light dots and wings" in text for text in texts)


def test_captions_name_only_what_is_there() -> None:
    assert not any(words(text) & (WORDS | {"and"}) for text in captions(500, PLAIN))
    only = captions(500, {**PLAIN, "feature": "boots"})
    assert {frozenset(words(text) & WORDS) for text in only} == {frozenset(), frozenset({"boots"})}


def test_no_caption_names_a_detail() -> None:
    rng = random.Random(0)
    secrets = {word for known in DETAILS.values() for value in known for word in value.split()}
    allowed = {"dark"}  # a marking's
    used: set[str] = set()
    for _ in range(20_000):
        scene = draw_scene(rng)
        used |= words(caption(scene.values, rng))
    assert not used & (secrets - allowed)
    assert used == set(vocabulary())


def test_prompts_name_private_attributes_when_asked() -> None:
    values = {
        "class": "cat",
        "color": "blue",
        "marking": "light dots",
        "feature": "antennae",
        "accessory": "crown",
        "background": "snow",
    }
    assert prompt(values) == (
        "a photo of a blue cat with light dots and antennae, wearing a crown, in the snow"
    )
    assert prompt({"class": "cat", "marking": "none", "feature": "boots"}) == (
        "a photo of a cat with boots"
    )
    assert prompt({"class": "cat", "marking": "dark sash"}) == "a photo of a cat with a dark sash"
