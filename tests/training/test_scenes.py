"""Scenes: where a subject is put, how it is laid over a place, what counts, and whole runs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from training_runs import draw_picture, recipe_values, run, same_tensors

from tlora_cli import UserError
from tlora_cli.foundation.bundled import shipped
from tlora_cli.photos.framing import square
from tlora_cli.photos.training_images import latent_mask, load_training_images
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.scenes import ScenesConfig
from tlora_cli.sampling.draw import SamplingSettings
from tlora_cli.training.batch import generator_for
from tlora_cli.training.scenes.composition import compose, counting, pure_colors
from tlora_cli.training.scenes.folder import places_in
from tlora_cli.training.scenes.lessons import Scenes
from tlora_cli.training.scenes.lists import LISTS, kind_of, list_of
from tlora_cli.training.scenes.placement import (
    Box,
    Placement,
    box_of,
    middle_of,
    plan_scenes,
    put_down,
)
from tlora_cli.training.scenes.words import scene_caption

SIDE = 64
SQUARES = [(SIDE, SIDE)] * 2


def disc(x: float, y: float, radius: float, side: int = SIDE) -> Tensor:
    """Return a mask with a soft edge of one pixel."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    distance = ((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2).sqrt()
    return (radius + 0.5 - distance).clamp(0, 1)[None]


def flat(color: tuple[float, float, float], side: int = SIDE) -> Tensor:
    return torch.tensor(color)[:, None, None].expand(3, side, side).clone()


# --- where ----------------------------------------------------------------------------------------


def test_a_box_has_the_edges_of_the_subject_and_the_borders_that_cut_it() -> None:
    mask = torch.zeros(1, 20, 30)
    mask[0, 3:9, 5:30] = 1
    assert box_of(mask) == Box(5, 3, 30, 9, frozenset({"right"}))


@pytest.mark.parametrize("cut", [(), ("left",), ("bottom",), ("left", "bottom"), ("left", "right")])
def test_whole_subjects_stay_whole_and_cut_ones_at_their_border(cut: tuple[str, ...]) -> None:
    left, right = (0 if "left" in cut else 20), (SIDE if "right" in cut else 44)
    bottom = SIDE if "bottom" in cut else 50
    box = Box(left, 18, right, bottom, frozenset(cut))
    chance, seen = generator_for(0), set()
    for _ in range(300):
        one = put_down(box, (SIDE, SIDE), ScenesConfig(), chance)
        seen.add((one.width, one.left, one.mirrored))
        borders = {"left": one.left == 0, "right": one.left + one.width == SIDE}
        if one.mirrored:
            borders = {"left": borders["right"], "right": borders["left"]}
        borders["bottom"] = one.top + one.height == SIDE
        if {"left", "right"} <= set(cut):
            assert one.width >= SIDE
        else:
            assert one.left >= 0 and one.left + one.width <= SIDE
            assert all(borders[name] for name in cut)
        assert one.top >= 0 and one.top + one.height <= SIDE
        scale = one.height / (bottom - 18)
        assert 0.85 - 0.02 <= scale <= 1.09 + 0.02
    assert len(seen) > 8


def test_movement_and_size_are_spread_over_their_ranges() -> None:
    box = Box(26, 26, 38, 38, frozenset())
    chance = generator_for(1)
    drawn = [put_down(box, (SIDE, SIDE), ScenesConfig(), chance) for _ in range(2000)]
    middles = np.array([middle_of(one, SIDE) for one in drawn])
    assert abs(middles.mean() - 0.5) < 0.02
    assert middles.std() == pytest.approx(0.5 / np.sqrt(12), rel=0.06)  # uniform over 0.25..0.75
    assert np.mean([one.mirrored for one in drawn]) == pytest.approx(0.5, abs=0.04)
    never = ScenesConfig(mirror=False)
    assert not any(put_down(box, (SIDE, SIDE), never, chance).mirrored for _ in range(200))


def test_a_plan_takes_photos_and_places_in_turn_and_is_a_function_of_the_seed() -> None:
    boxes = [Box(10, 10, 30, 50, frozenset())] * 2
    plan = plan_scenes(boxes, SQUARES, 12, ScenesConfig(), seed=4)
    assert plan == plan_scenes(boxes, SQUARES, 12, ScenesConfig(), seed=4)
    assert plan != plan_scenes(boxes, SQUARES, 12, ScenesConfig(), seed=5)
    assert len(plan) == 64
    assert sum(scene.place is None for scene in plan) == 16
    assert Counter(s.place for s in plan if s.place is not None) == dict.fromkeys(range(12), 4)
    assert Counter(scene.image for scene in plan) == {0: 32, 1: 32}
    alone = plan_scenes(boxes, SQUARES, 3, ScenesConfig(untouched=0, count=6), seed=0)
    assert all(scene.place is not None for scene in alone)


# --- how ------------------------------------------------------------------------------------------


def test_a_moved_subject_is_laid_over_the_place_pixel_for_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    photo, place = (torch.rand(3, SIDE, SIDE, generator=generator) * 2 - 1 for _ in range(2))
    mask = torch.zeros(1, SIDE, SIDE)
    mask[0, 20:40, 10:30] = 1
    placement = Placement(20, 20, 35, 24, False)
    scene, where = compose(photo, mask, box_of(mask), place, placement)
    expected = place.clone()
    expected[:, 24:44, 35:55] = photo[:, 20:40, 10:30]
    assert torch.allclose(scene, expected, atol=1e-5)
    assert torch.equal(where, torch.nn.functional.pad(mask[:, 20:40, 10:30], (35, 9, 24, 20)))
    flipped, _ = compose(photo, mask, box_of(mask), place, Placement(20, 20, 35, 24, True))
    expected[:, 24:44, 35:55] = photo[:, 20:40, 10:30].flip(-1)
    assert torch.allclose(flipped, expected, atol=1e-5)


def test_no_color_of_the_photos_background_comes_along() -> None:
    """Only the subject's color and the place's, mixed along the edge; none of the green ground."""
    mask = disc(30, 33, 12)
    red, green, blue = flat((0.9, -0.9, -0.9)), flat((-0.9, 0.9, -0.9)), flat((-0.9, -0.9, 0.9))
    photo = mask * red + (1 - mask) * green
    for width in (21, 25, 30):
        placement = Placement(width, width, 8, 20, False)
        scene, where = compose(photo, mask, box_of(mask), blue, placement)
        assert float(scene[1].max()) < -0.87
        mixed = where * red + (1 - where) * blue
        assert torch.allclose(scene, mixed, atol=0.03)
        own = box_of(mask).right - box_of(mask).left
        share = float(where.sum() / mask.sum())
        assert share == pytest.approx((width / own) ** 2, rel=0.05)


def test_thin_parts_keep_their_colors() -> None:
    mask = torch.zeros(1, SIDE, SIDE)
    mask[0, 10:50, 31] = 0.6
    colors = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    assert torch.equal(pure_colors(colors, mask), colors)


def test_a_subject_that_reaches_beyond_the_border_is_cut() -> None:
    mask = torch.zeros(1, SIDE, SIDE)
    mask[0, 4:60, :] = 1
    photo = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(2)) * 2 - 1
    scene, where = compose(
        photo, mask, box_of(mask), flat((0, 0, 0)), Placement(SIDE + 6, 60, -3, 2, False)
    )
    assert scene.shape == photo.shape
    assert torch.equal(where[0, 2:62] > 0.99, torch.ones(60, SIDE, dtype=torch.bool))


def test_a_band_along_the_seam_does_not_count_and_thin_parts_do() -> None:
    side = 1000  # a band of 4 pixels
    mask = torch.zeros(1, side, side)
    mask[0, 200:600, 0:400] = 1  # thick, cut by the left border
    mask[0, 700:706, 300:800] = 1  # an antenna of 6 pixels
    counted = counting(mask)
    expected = torch.zeros_like(mask)
    expected[0, 204:596, 0:396] = 1
    expected[0, 700:706, 300:800] = 1
    differing = (counted != expected).sum()
    assert int(differing) == 0
    small = disc(20, 20, 9)
    assert torch.equal(counting(small), (small >= 0.5).float())  # no band of half a pixel


def test_touched_places_of_the_latent_count_whole() -> None:
    mask = torch.zeros(1, 16, 16)
    mask[0, 5, 2] = 1
    mean, touched = latent_mask(mask, 4, 4), latent_mask(mask, 4, 4, touched=True)
    expected = torch.zeros(1, 4, 4)
    expected[0, 1, 0] = 1
    assert torch.equal(touched, expected)
    assert torch.equal(mean, expected / 16)


# --- words and places -----------------------------------------------------------------------------


def test_a_caption_names_the_place_and_the_side() -> None:
    assert scene_caption("a photo of sks dog", "in the snow", 0.5) == (
        "a photo of sks dog, in the snow"
    )
    assert scene_caption("a photo of sks dog", "in the snow", 0.3).endswith(", on the left")
    assert scene_caption("a photo of sks dog", "in the snow", 0.7).endswith(", on the right")


def test_lists_fit_the_class_and_name_no_subject() -> None:
    assert [kind_of(word) for word in ("dog", "old man", "backpack", "Stuffed Bear")] == [
        "animals",
        "people",
        "things",
        "animals",
    ]
    for places in LISTS.values():
        assert len({words for words, _ in places}) == len(places) >= 12
        for words, prompt in places:
            assert not {"dog", "cat", "person", "sks"} & {*words.split(), *prompt.split()}
    assert list_of("auto", "dog", "a/base") is LISTS["animals"]
    assert list_of("things", "dog", "a/base") is LISTS["things"]
    assert list_of("my/places", "dog", "a/base") is None
    assert list_of("auto", "cat", "toy-sdxl") is shipped().places


def test_a_folder_of_places_needs_words_for_each(tmp_path: Path) -> None:
    draw_picture(tmp_path / "beach.png")
    with pytest.raises(UserError, match="no words for the place") as caught:
        places_in(str(tmp_path), square(32))
    assert "beach.txt" in caught.value.do
    (tmp_path / "beach.txt").write_text("on the\nbeach\n")
    [(words, pixels)] = places_in(str(tmp_path), square(32))
    assert words == "on the beach"
    assert pixels.shape == (3, 32, 32)
    (tmp_path / "beach.txt").write_text("  \n")
    with pytest.raises(UserError, match="is empty"):
        places_in(str(tmp_path), square(32))
    with pytest.raises(UserError, match="there is no file"):
        places_in(str(tmp_path / "nothing"), square(32))


# --- runs -----------------------------------------------------------------------------------------


def with_scenes(folder: Path, **scenes: Any) -> dict[str, Any]:
    """Return the changes of a recipe that make it train on scenes; writes a mask."""
    folder.mkdir(exist_ok=True)
    mask = (disc(48, 48, 20, 96)[0] * 255).byte().numpy()
    Image.fromarray(mask).save(folder / "mask.png")
    few = {"count": 6, "each": 1, "places": "things", **scenes}
    return {"concept__masks": str(folder / "mask.png"), "concept__scenes": few}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "places"


@pytest.mark.parametrize("base", ["tiny_sdxl", "tiny_flux"])
def test_a_stopped_run_on_scenes_goes_on_to_the_same_bits(
    base: str, tmp_path: Path, cache: Path, request: pytest.FixtureRequest
) -> None:
    tiny, whole, part = request.getfixturevalue(base), tmp_path / "whole", tmp_path / "part"
    run(tiny, whole, **with_scenes(whole))
    drawn = sorted(cache.iterdir())
    assert len(drawn) == 12
    assert (whole / "run" / "scenes.png").exists()
    before = [file.stat().st_mtime_ns for file in drawn]
    run(tiny, part, **with_scenes(part), train__steps=2)
    assert [file.stat().st_mtime_ns for file in drawn] == before, "places were drawn again"
    for file in drawn:
        file.unlink()
    run(tiny, part, resume=True, **with_scenes(part), train__steps=6)
    assert not list(cache.iterdir()), "the run has its own copies"
    assert same_tensors(whole / "run/adapter.safetensors", part / "run/adapter.safetensors")


def test_places_of_ones_own_and_a_changed_place_stops_a_resume(
    tiny_sdxl: Path, tmp_path: Path, cache: Path
) -> None:
    places = tmp_path / "places"
    places.mkdir()
    draw_picture(places / "room.png", seed=5)
    (places / "room.txt").write_text("in my room")
    changes = with_scenes(tmp_path / "a", places=str(places))
    run(tiny_sdxl, tmp_path / "a", **changes, train__steps=2)
    assert not cache.exists(), "nothing has to be drawn"
    draw_picture(places / "room.png", seed=6)
    with pytest.raises(UserError, match="changed"):
        run(tiny_sdxl, tmp_path / "a", resume=True, **changes, train__steps=4)


@pytest.mark.parametrize(("loss", "counts"), [("subject", True), ("whole", False)])
def test_the_loss_counts_on_the_subject_or_everywhere(
    loss: str, counts: bool, tiny_sdxl: Path, tmp_path: Path
) -> None:
    places = tmp_path / "places"
    places.mkdir()
    draw_picture(places / "room.png", seed=5)
    (places / "room.txt").write_text("in my room")
    changes = with_scenes(tmp_path, places=str(places), loss=loss)
    recipe = Recipe.model_validate(recipe_values(tiny_sdxl, tmp_path, **changes))
    images = load_training_images(
        recipe.concept.images, recipe.concept.masks, recipe.train.resolution
    )
    settings = SamplingSettings(1, 1.0, "default", "", 32, 32)
    scenes = Scenes(recipe, images, settings, tmp_path, lambda text: None)
    masks = [lesson.image.mask for lesson in scenes.lessons()]
    assert len(masks) == 6
    for mask in masks:  # the untouched photo among them
        assert (mask is not None) == counts
        assert mask is None or 0 < float(mask.mean()) < 0.5


def test_scenes_without_masks_are_refused(tiny_sdxl: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="masks: scenes need to know where the subject is"):
        Recipe.model_validate(recipe_values(tiny_sdxl, tmp_path, concept__scenes={}))


def test_a_cache_that_can_not_be_written_is_said_once(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TLORA_CACHE", str(tmp_path / "file"))
    folder = tmp_path / "run-folder"
    outcome = run(tiny_sdxl, folder, **with_scenes(folder), train__steps=2)
    assert outcome.adapter is not None
    assert capfd.readouterr().err.count("places are not kept for later runs") == 1


def test_the_scenes_of_a_recipe_are_in_its_file(tiny_sdxl: Path, tmp_path: Path) -> None:
    values = recipe_values(tiny_sdxl, tmp_path, **with_scenes(tmp_path))
    kept = json.loads(Recipe.model_validate(values).model_dump_json(by_alias=True))
    assert Recipe.model_validate(kept) == Recipe.model_validate(values)
