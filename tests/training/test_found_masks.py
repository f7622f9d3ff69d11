"""Runs whose masks are found by themselves: written down, kept on resume, never silently wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training_runs import recipe_values, run, same_tensors, write_recipe
from validations import recipe as validated
from validations import told

from tlora_cli.foundation.errors import UserError
from tlora_cli.photos.masks import finder
from tlora_cli.photos.training_images import latent_mask
from tlora_cli.recipe.models import Recipe
from tlora_cli.tools.preflight.image_checks import look_at_pictures
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.training import found_masks
from tlora_cli.training.run_folder import RunFolder

AUTO = {"concept__masks": "auto"}


def photo(folder: Path, *boxes: tuple[int, int, int, int], side: int = 96) -> Path:
    """Write blue ground with red boxes (left, top, right, bottom)."""
    folder.mkdir(exist_ok=True)
    picture = Image.new("RGB", (side, side), (40, 110, 170))
    for box in boxes:
        picture.paste((220, 60, 40), box)
    picture.save(folder / "photo.png")
    return folder / "photo.png"


def test_a_run_writes_the_masks_it_used_and_is_told_so(
    tiny_sdxl: Path, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    photo(tmp_path, (30, 24, 66, 72))
    file = write_recipe(tiny_sdxl, tmp_path, **AUTO, train__steps=2)
    status, _, said = cli("train", "--config", file)
    assert status == 0
    by = f"GrabCut and {tiny_sdxl}"
    assert f"mask of {tmp_path}/photo.png: 19% of it, by {by}: " in said
    assert f"loading {tiny_sdxl} to find the subject; it is loaded again for training" in said
    masks = tmp_path / "run" / "masks"
    assert sorted(one.name for one in masks.iterdir()) == ["photo.png", "photo_overlay.png"]
    found = np.asarray(Image.open(masks / "photo.png")) > 127
    truth = np.zeros((96, 96), bool)
    truth[24:72, 30:66] = True
    assert (found == truth).mean() > 0.99
    kept = np.asarray(Image.open(tmp_path / "run" / "training_pictures" / "000-mask.png"))
    assert kept.shape == (64, 64) and 0.15 < kept.mean() / 255 < 0.22


def test_the_loss_counts_touched_places_fully(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same mask as a file counts by shares, so it trains otherwise; a full one is the same."""
    photo(tmp_path, (30, 24, 66, 72))
    run(tiny_sdxl, tmp_path, **AUTO, train__steps=2)
    file = tmp_path / "run" / "masks" / "photo.png"
    given = {"concept__masks": str(file), "train__steps": 2}
    run(tiny_sdxl, tmp_path, **given, output__dir=str(tmp_path / "shares"))
    adapter = tmp_path / "run" / "adapter.safetensors"
    assert not same_tensors(adapter, tmp_path / "shares" / "adapter.safetensors")
    whole = Image.open(file).point(lambda level: 255 * (level > 127))
    # The latent's places are 8 pixels of the photo at 64: 12 of the file's.
    square = np.asarray(whole).reshape(8, 12, 8, 12).max((1, 3)).repeat(12, 0).repeat(12, 1)
    Image.fromarray(square).save(tmp_path / "square.png")
    given["concept__masks"] = str(tmp_path / "square.png")
    run(tiny_sdxl, tmp_path, **given, output__dir=str(tmp_path / "squares"))
    first, second = (
        load_file(tmp_path / name / "adapter.safetensors") for name in ("run", "squares")
    )
    assert all(torch.allclose(first[key], second[key], atol=1e-6) for key in first)


def test_touched_places_of_the_latent() -> None:
    mask = torch.zeros(1, 16, 16)
    mask[0, 3, 0:9] = 1  # a thread through two places and an eighth of the third
    mask[0, 12, 12] = 0.2  # fainter than what can be seen
    mask[0, 15, 15] = 0.3
    shares = latent_mask(mask, 4, 4)[0]
    assert shares[0].tolist() == [0.25, 0.25, 0.0625, 0] and shares.sum() < 0.6
    wanted = torch.zeros(4, 4)
    wanted[0, :3] = wanted[3, 3] = 1
    assert torch.equal(latent_mask(mask, 4, 4, touched=True)[0], wanted)


def test_a_resumed_run_has_the_same_masks_and_weights(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "a", (30, 24, 66, 72))
    run(tiny_sdxl, tmp_path / "a", **AUTO)
    photo(tmp_path / "b", (30, 24, 66, 72))
    run(tiny_sdxl, tmp_path / "b", **AUTO, train__steps=4)
    mask = tmp_path / "b" / "run" / "masks" / "photo.png"
    before = mask.read_bytes()

    def another(*_: Any) -> Any:
        raise AssertionError("the masks are there")

    monkeypatch.setattr(found_masks.MaskFinder, "find", another)
    monkeypatch.setattr(found_masks, "look", another)
    run(tiny_sdxl, tmp_path / "b", resume=True, **AUTO)
    assert mask.read_bytes() == before
    whole, resumed = (tmp_path / name / "run" / "adapter.safetensors" for name in "ab")
    assert same_tensors(whole, resumed)


def test_a_mask_painted_over_between_is_noticed(tiny_sdxl: Path, tmp_path: Path) -> None:
    photo(tmp_path, (30, 24, 66, 72))
    run(tiny_sdxl, tmp_path, **AUTO, train__steps=2)
    mask = tmp_path / "run" / "masks" / "photo.png"
    before = mask.read_bytes()
    Image.new("L", (96, 96), 255).save(mask)
    with pytest.raises(UserError, match="pictures, masks or captions have changed"):
        run(tiny_sdxl, tmp_path, resume=True, **AUTO)
    mask.write_bytes(before)
    assert run(tiny_sdxl, tmp_path, resume=True, **AUTO).step == 6


def test_two_subjects_stop_the_run_and_the_remedy_works(
    tiny_sdxl: Path, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    photo(tmp_path, (8, 30, 40, 70), (56, 30, 88, 70))
    file = write_recipe(tiny_sdxl, tmp_path, **AUTO, train__steps=2)
    status, _, said = cli("train", "--config", file)
    masks = tmp_path / "run" / "masks"
    assert status == 2 and "more than one subject" in said
    assert "loading text encoders" not in said
    assert f"where: {masks}/photo_overlay.png" in said and f"concept.masks: {masks}" in said
    painted = Image.new("L", (96, 96))
    painted.paste(255, (8, 30, 40, 70))
    painted.save(masks / "photo.png")
    status, _, said = cli("train", "--config", file)
    assert status == 2 and "if you corrected it" in said
    assert np.array_equal(np.asarray(Image.open(masks / "photo.png")), np.asarray(painted))
    status, _, said = cli("train", "--config", file, "--set", f"concept.masks={masks}")
    assert status == 0, said


@pytest.mark.full
def test_masks_that_are_there_are_not_found_again(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a start that failed before the first step; in another question they are."""
    photo(tmp_path, (30, 24, 66, 72))
    asked = []
    real = found_masks.look

    def look(*given: Any) -> Any:
        asked.append(given[3])
        return real(*given)

    monkeypatch.setattr(found_masks, "look", look)
    for word in ("dog", "dog", "cat"):
        recipe = Recipe.model_validate(
            recipe_values(tiny_sdxl, tmp_path, **AUTO, concept__class=word)
        )
        folder = RunFolder(tmp_path / "run")
        [image] = found_masks.load_concept(recipe, folder, torch.device("cpu"), list)
        assert image.mask is not None and image.touched
    assert asked == ["dog", "cat"]
    with pytest.raises(UserError, match="more than one subject"):
        fail_twice(tiny_sdxl, tmp_path / "two")
    before = len(asked)
    with pytest.raises(UserError, match="more than one subject"):
        fail_twice(tiny_sdxl, tmp_path / "two")
    assert len(asked) == before


def fail_twice(tiny: Path, folder: Path) -> None:
    photo(folder, (8, 30, 40, 70), (56, 30, 88, 70))
    run(tiny, folder, **AUTO, train__steps=1)


def test_a_run_that_began_with_masks_of_the_old_kind_keeps_them(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were found without the base, and nothing is written in their files."""
    photo(tmp_path, (30, 24, 66, 72))
    with monkeypatch.context() as patch:
        patch.setattr(found_masks, "_seen", lambda *_: {})
        run(tiny_sdxl, tmp_path, **AUTO, train__steps=2)
    mask = tmp_path / "run" / "masks" / "photo.png"
    Image.open(mask).copy().save(mask)
    before = mask.read_bytes()
    assert b"tlora" not in before
    monkeypatch.setattr(found_masks, "look", None)
    assert run(tiny_sdxl, tmp_path, resume=True, **AUTO).step == 6
    assert mask.read_bytes() == before


def test_a_base_is_not_asked_about_what_it_cannot_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(found_masks, "look", None)
    values = recipe_values(Path("toy-sdxl"), tmp_path, **AUTO)
    values["concept"]["images"] = str(Path(__file__).parents[2] / "assets" / "photo.jpg")
    folder, told = RunFolder(tmp_path / "run"), []
    recipe = Recipe.model_validate(values)
    found_masks.load_concept(recipe, folder, torch.device("cpu"), told.append)
    assert len(told) == 1 and "by GrabCut: " in told[0]


@pytest.mark.full
def test_training_on_a_drawing_takes_the_better_mask(
    tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    values = {
        "base": "toy-sdxl",
        "family": "sdxl",
        "concept": {"images": "toy:toto/1", "class": "mushroom", "masks": "auto"},
        "train": {"steps": 1},
        "output": {"dir": str(tmp_path / "run"), "trackers": []},
    }
    (tmp_path / "in.yaml").write_text(json.dumps(values))
    status, _, said = cli("train", "--config", tmp_path / "in.yaml")
    assert status == 0 and "by GrabCut and toy-sdxl: " in said
    found = np.asarray(Image.open(tmp_path / "run" / "masks" / "1.png")) > 127
    truth = np.asarray(Image.open(BUNDLE.pictures / "toto" / "mask-1.png").convert("L")) > 127
    assert (found & truth).sum() / (found | truth).sum() > 0.85


def test_a_model_that_is_not_there_stops_before_anything_is_loaded(
    tiny_sdxl: Path, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    photo(tmp_path, (30, 24, 66, 72))
    model = {"concept__mask_model": "nobody/nothing"}
    file = write_recipe(tiny_sdxl, tmp_path, **AUTO, **model)
    status, _, said = cli("train", "--config", file)
    assert status == 3 and "masking checkpoint can't be loaded" in said
    assert "nobody/nothing" in said and "loading text encoders" not in said


def test_a_transparent_background_needs_no_model(tiny_sdxl: Path, tmp_path: Path) -> None:
    cut = Image.open(photo(tmp_path, (30, 24, 66, 72)))
    alpha = Image.new("L", cut.size)
    alpha.paste(255, (30, 24, 66, 72))
    cut.putalpha(alpha)
    cut.save(tmp_path / "photo.png")
    run(tiny_sdxl, tmp_path, **AUTO, concept__mask_model="nobody/nothing", train__steps=1)
    used = Image.open(tmp_path / "run" / "masks" / "photo.png")
    assert used.tobytes() == alpha.tobytes()


def test_a_model_without_auto_is_a_mistake(tiny_sdxl: Path, tmp_path: Path) -> None:
    values = recipe_values(tiny_sdxl, tmp_path, concept__mask_model="a/b")
    with pytest.raises(ValueError, match="mask_model: belongs to masks: auto"):
        Recipe.model_validate(values)


@pytest.mark.parametrize(
    ("boxes", "level", "words"),
    [
        ([(30, 24, 66, 72)], "ok", "the subject is 19% of it, by GrabCut; the run has "),
        ([(8, 30, 40, 70), (56, 30, 88, 70)], "warning", "more than one subject"),
        ([], "warning", "no subject was found"),
    ],
)
def test_validate_looks_at_them(
    boxes: list[tuple[int, int, int, int]],
    level: str,
    words: str,
    tiny_sdxl: Path,
    tmp_path: Path,
) -> None:
    photo(tmp_path, *boxes)
    found = list(look_at_pictures(validated(tiny_sdxl, tmp_path, **AUTO)))
    assert words in told(found, level)
    if level == "warning":
        assert any("tlora mask " in one.do for one in found)
    assert not (tmp_path / "run").exists()


def test_validate_loads_no_model(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path, (30, 24, 66, 72))
    monkeypatch.setattr(finder, "Segmenter", None)
    changes = {**AUTO, "concept__mask_model": "nobody/nothing"}
    found = list(look_at_pictures(validated(tiny_sdxl, tmp_path, **changes)))
    assert "the run has nobody/nothing find the subject" in told(found, "ok")
    assert not told(found, "problem")
