"""The built-in world: same scene, same pixels; every value shows; captions keep the secrets."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from toyworld.pictures import scene as training_scene

from tlora_cli.toyworld.backgrounds import BACKGROUNDS
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.toyworld.canvas import Canvas
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.factors import (
    ATTRIBUTES,
    DETAILS,
    FACTORS,
    PRIVATE,
    Pose,
    Scene,
    draw_factors,
    draw_private,
    draw_scene,
    is_held_out,
    pair_is_held_out,
)
from tlora_cli.toyworld.renderer import draw

ROOT = Path(__file__).parents[2]
PLAIN = {
    "class": "cat",
    "color": "red",
    "background": "meadow",
    "position": "center",
    "accessory": "none",
    "marking": "none",
    "feature": "none",
}
HELD_OUT = {("class", "color"): 13, ("class", "background"): 13, ("color", "background"): 12}
"""Pair of factors -> how many of its 64 pairs no training picture has."""
SUBJECT = ("class", "color", "marking", "feature", "eyes", "shade")


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(draw(scene).image).astype(int)


def mask(scene: Scene, grown: int = 0) -> np.ndarray:
    """Return where the subject is, and `grown` pixels around it."""
    drawn = draw(scene).mask
    return np.asarray(drawn.filter(ImageFilter.MaxFilter(2 * grown + 1)) if grown else drawn)


def scenes(count: int, held_out: bool | None = None) -> list[Scene]:
    rng = random.Random("world")
    return [draw_scene(rng, held_out) for _ in range(count)]


# --- drawing --------------------------------------------------------------------------------------

DIGEST = """
import hashlib, random
from tlora_cli.toyworld.factors import draw_scene
from tlora_cli.toyworld.renderer import draw
rng, digest = random.Random("world"), hashlib.sha256()
for _ in range(20):
    picture = draw(draw_scene(rng))
    digest.update(picture.image.tobytes() + picture.mask.tobytes())
print(digest.hexdigest())
"""


def test_the_same_scene_gives_the_same_pixels_in_another_process() -> None:
    digest = hashlib.sha256()
    for scene in scenes(20):
        one, two = draw(scene), draw(scene)
        assert one.image.mode == "RGB" and one.mask.mode == "L"
        assert one.image.size == one.mask.size == (64, 64)
        assert one.image.tobytes() == two.image.tobytes()
        assert one.mask.tobytes() == two.mask.tobytes()
        digest.update(one.image.tobytes() + one.mask.tobytes())
    found = subprocess.run(
        [sys.executable, "-c", DIGEST],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"},
    )
    assert found.stdout.strip() == digest.hexdigest()


@pytest.mark.parametrize("name", [*FACTORS, *PRIVATE])
def test_every_value_gives_another_picture(name: str) -> None:
    for cls in FACTORS["class"] if name != "class" else ("cat",):
        drawn = [pixels(Scene({**PLAIN, "class": cls, name: value})) for value in ATTRIBUTES[name]]
        for (i, one), (j, two) in combinations(enumerate(drawn), 2):
            plain = (np.abs(one - two).max(2) > 40).sum()
            assert plain >= 40, f"{cls}: {ATTRIBUTES[name][i]} and {ATTRIBUTES[name][j]}"


@pytest.mark.parametrize("cls", FACTORS["class"])
def test_every_private_attribute_shows_on_every_color(cls: str) -> None:
    for color in FACTORS["color"]:
        scene = Scene({**PLAIN, "class": cls, "color": color})
        bare = pixels(scene)
        for name, values in PRIVATE.items():
            for value in values[1:]:
                differs = np.abs(pixels(scene.changed(**{name: value})) - bare).max(2) > 40
                assert differs.sum() >= 50, f"{value} on a {color} {cls}"


@pytest.mark.parametrize("name", SUBJECT)
def test_the_background_stays_when_the_subject_changes(name: str) -> None:
    for background in FACTORS["background"]:
        scene = Scene({**PLAIN, "background": background}, texture=5)
        for value in ATTRIBUTES[name][1:]:
            other = scene.changed(**{name: value})
            outside = np.maximum(mask(scene, 2), mask(other, 2)) == 0
            assert outside.sum() > 2000
            assert (pixels(scene) == pixels(other))[outside].all(), value


def test_texture_and_pose_change_the_picture() -> None:
    for background in FACTORS["background"]:
        values = {**PLAIN, "background": background}
        plain = pixels(Scene(values))
        assert (plain != pixels(Scene(values, texture=1))).any()
        assert (plain != pixels(Scene(values, Pose(angle=8)))).any()


def test_the_mask_covers_the_subject_and_no_more() -> None:
    for scene in scenes(60):
        bare = scene.changed(accessory="none")
        canvas = Canvas()
        BACKGROUNDS[scene["background"]](canvas, random.Random(scene.texture))
        empty = np.asarray(canvas.finished())
        picture = draw(bare)
        drawn_over = (np.asarray(picture.image) != empty).any(2)
        inside = np.asarray(picture.mask)
        assert drawn_over[inside == 255].all()
        grown = np.asarray(picture.mask.filter(ImageFilter.MaxFilter(3)))
        assert not drawn_over[grown == 0].any()
        assert (inside == mask(scene)).all(), "an accessory is no part of the subject"


def test_the_subject_stands_where_it_is_said_to() -> None:
    middles = {"left": 19, "center": 32, "right": 45}
    for cls, feature, position in product(FACTORS["class"], PRIVATE["feature"], middles):
        for flipped in (False, True):
            values = {**PLAIN, "class": cls, "feature": feature, "position": position}
            weights = mask(Scene(values, Pose(flipped=flipped))).astype(float)
            middle = (weights * np.arange(64)).sum() / weights.sum()
            assert abs(middle - middles[position]) < 4, (cls, feature, position)


def test_a_scene_with_an_unknown_value_is_refused() -> None:
    with pytest.raises(ValueError, match="color is 'gray'; known: red, orange"):
        Scene({**PLAIN, "color": "gray"})
    with pytest.raises(ValueError, match="feature is None; known: none, wings"):
        Scene({name: value for name, value in PLAIN.items() if name != "feature"})


# --- what is held out -----------------------------------------------------------------------------


@pytest.mark.parametrize("pair", HELD_OUT)
def test_a_fifth_of_the_pairs_is_held_out(pair: tuple[str, str]) -> None:
    one, two = pair
    held = [
        [pair_is_held_out(one, first, two, second) for second in FACTORS[two]]
        for first in FACTORS[one]
    ]
    table = np.array(held)
    assert table.shape == (8, 8)
    assert table.sum() == HELD_OUT[pair]  # 20.3, 20.3 and 18.8%
    assert (~table).sum(0).min() == (~table).sum(1).min() == 6, "partners left of every value"


def test_held_out_means_at_least_one_pair() -> None:
    held = [
        is_held_out(dict(zip(("class", "color", "background"), values, strict=True)))
        for values in product(FACTORS["class"], FACTORS["color"], FACTORS["background"])
    ]
    assert (sum(held), len(held)) == (249, 512)


def test_factors_are_drawn_as_asked() -> None:
    rng = random.Random(0)
    for wanted in (True, False):
        drawn = [draw_factors(rng, wanted) for _ in range(400)]
        assert {is_held_out(values) for values in drawn} == {wanted}
        for name, known in FACTORS.items():
            assert {values[name] for values in drawn} == set(known)
    assert {is_held_out(draw_factors(rng)) for _ in range(100)} == {True, False}
    assert {is_held_out(scene.values) for scene in scenes(50, True)} == {True}


@pytest.mark.parametrize("pair", HELD_OUT)
def test_training_shows_every_seen_pair_and_no_held_out_one(pair: tuple[str, str]) -> None:
    one, two = pair
    shown = {(s[one], s[two]) for s in (training_scene("seen", n) for n in range(2000))}
    held = {(s[one], s[two]) for s in (training_scene("held-test", n) for n in range(2000))}
    seen = {
        (first, second)
        for first, second in product(FACTORS[one], FACTORS[two])
        if not pair_is_held_out(one, first, two, second)
    }
    assert shown == seen
    assert held - seen


def test_private_attributes_are_drawn_plain_half_of_the_time() -> None:
    rng = random.Random(0)
    drawn = [draw_private(rng) for _ in range(3000)]
    for name, known in PRIVATE.items():
        values = [one[name] for one in drawn]
        assert 0.47 < values.count("none") / len(values) < 0.53
        share = 0.5 / (len(known) - 1)
        for value in known[1:]:
            assert abs(values.count(value) / len(values) - share) < 0.03


# --- concepts -------------------------------------------------------------------------------------


def test_concepts_differ_in_their_private_attributes() -> None:
    assert len(CONCEPTS) >= 8
    private = {(one.marking, one.feature) for one in CONCEPTS.values()}
    assert len(private) == len(CONCEPTS)
    assert not any("none" in pair for pair in private)
    for name, known in DETAILS.items():
        shown = [one.values[name] for one in CONCEPTS.values()]
        assert {value: shown.count(value) for value in known} == dict.fromkeys(
            known, len(CONCEPTS) // len(known)
        )
    assert all(name == one.name for name, one in CONCEPTS.items())


@pytest.mark.parametrize("name", CONCEPTS)
def test_scenes_of_a_concept(name: str) -> None:
    concept = CONCEPTS[name]
    found = concept.scenes()
    assert len(found) >= 3
    assert found == concept.scenes()
    assert not any(is_held_out(scene.values) for scene in found)
    for scene in found:
        assert {key: scene[key] for key in SUBJECT} == {
            "class": concept.class_name,
            "color": concept.color,
            "marking": concept.marking,
            "feature": concept.feature,
            "eyes": concept.eyes,
            "shade": concept.shade,
        }
    assert len({scene["background"] for scene in found}) == len(found)
    assert len({scene["accessory"] for scene in found}) == len(found)
    assert {scene["position"] for scene in found} == set(FACTORS["position"])
    assert len({scene.pose for scene in found}) == len(found)


@pytest.mark.parametrize("name", CONCEPTS)
def test_shipped_pictures_are_what_is_drawn(name: str) -> None:
    expected = {}
    for number, scene in enumerate(CONCEPTS[name].scenes(), 1):
        picture = draw(scene)
        expected[f"{number}.png"] = picture.image
        expected[f"mask-{number}.png"] = picture.mask
    assert {path.name for path in (BUNDLE.pictures / name).iterdir()} == expected.keys()
    for file, image in expected.items():
        with Image.open(BUNDLE.pictures / name / file) as shipped:
            assert shipped.mode == image.mode
            assert shipped.tobytes() == image.tobytes(), f"{name}/{file}"


def test_no_other_pictures_are_shipped() -> None:
    assert {path.name for path in BUNDLE.pictures.iterdir()} == CONCEPTS.keys()
