"""Pictures that keep their shape: the sizes of a run, what the base is told, and whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from training_runs import draw_picture, recipe_values, run, same_tensors

from tlora_cli import UserError
from tlora_cli.comparison.tasks import AS_BEFORE
from tlora_cli.families import FAMILIES
from tlora_cli.formats import read_origin
from tlora_cli.photos.training_images import load_training_images
from tlora_cli.recipe.models import Recipe
from tlora_cli.training.from_recipe import sampling_settings
from tlora_cli.training.kept_images import GAP, sheet_of
from tlora_cli.training.scenes.composition import compose, fitted
from tlora_cli.training.scenes.placement import Placement, box_of
from tlora_cli.training.shape import frame_of, shape_problem, training_size, training_sizes


def photo(folder: Path, name: str = "photo.png", size: tuple[int, int] = (72, 96)) -> str:
    """Write a picture of 72 x 96 pixels; at 64 squared it becomes 56 x 72, by 16 it is 48 x 80."""
    file = draw_picture(folder / name)
    Image.open(file).resize(size).save(file)
    return str(file)


def recipe(tiny: Path, folder: Path, **changes: Any) -> Recipe:
    return Recipe.model_validate(recipe_values(tiny, folder, **changes))


# --- sizes ----------------------------------------------------------------------------------------


def test_drawing_follows_the_training_pictures(
    tiny_sdxl: Path, tiny_flux: Path, tmp_path: Path
) -> None:
    one = photo(tmp_path)
    whole = {"train__crop": "none"}
    for tiny, size in ((tiny_sdxl, (56, 72)), (tiny_flux, (48, 80))):
        made = recipe(tiny, tmp_path, **whole)
        settings = sampling_settings(made)
        assert (settings.width, settings.height) == training_size(made) == size
    settings = sampling_settings(recipe(tiny_sdxl, tmp_path, **whole, sampling__width=128))
    assert (settings.width, settings.height) == (128, 72)
    for crop in ("center", "subject"):
        cut = recipe(tiny_sdxl, tmp_path, train__crop=crop, concept__masks="auto")
        assert training_size(cut) == (64, 64)
    assert training_size(recipe(tiny_sdxl, tmp_path)) == (64, 64), "without the key, as before"
    both = [one, photo(tmp_path, "wide.png", (96, 72))]
    mixed = recipe(tiny_sdxl, tmp_path, **whole, concept__images=both)
    assert training_sizes(mixed) == [(56, 72), (72, 56)] and training_size(mixed) == (64, 64)
    gone = recipe(tiny_sdxl, tmp_path, **whole, concept__images=str(tmp_path / "gone.png"))
    assert training_size(gone) == (64, 64), "planned for another machine"


def test_pictures_of_several_shapes_go_one_by_one(tiny_sdxl: Path, tmp_path: Path) -> None:
    sizes = [(56, 72), (72, 56)]
    for changes, key in (
        ({"train__batch_size": 2}, "train.batch_size"),
        ({"concept__prior": {}}, "concept.prior"),
    ):
        made = recipe(tiny_sdxl, tmp_path, train__crop="none", **changes)
        wrong = shape_problem(made, sizes)
        assert wrong is not None and "2 shapes" in wrong.what and key in f"{wrong.what} {wrong.do}"
        assert shape_problem(made, [sizes[0], sizes[0]]) is None
    assert shape_problem(recipe(tiny_sdxl, tmp_path), sizes) is None
    both = [photo(tmp_path), photo(tmp_path, "wide.png", (96, 72))]
    changes = {"train__crop": "none", "concept__images": both, "train__batch_size": 2}
    with pytest.raises(UserError, match=r"2 shapes, but train\.batch_size takes 2"):
        run(tiny_sdxl, tmp_path, **changes)


def test_a_subject_needs_a_mask(tiny_sdxl: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="known by its mask"):
        recipe(tiny_sdxl, tmp_path, train__crop="subject")


def test_sdxl_is_told_heights_first(tiny_sdxl: Path, tmp_path: Path) -> None:
    """original_size, crops_coords_top_left, target_size, as diffusers' `_get_add_time_ids` joins.

    The pipeline says of a picture that it draws that it was never cropped or scaled.
    """
    photo(tmp_path)
    [image] = load_training_images(
        str(tmp_path / "photo.png"), None, frame_of(recipe(tiny_sdxl, tmp_path, train__crop="none"))
    )
    assert image.part == (72, 93)  # 72 x 96 has the shape 3 to 4, 56 x 72 has 7 to 9
    found = FAMILIES["sdxl"].image_conditioning(image.part, image.size)["time_ids"]
    assert found.tolist() == [[*(93, 72), *(0, 0), *(72, 56)]]
    square = FAMILIES["sdxl"].image_conditioning((800, 800), (64, 64))["time_ids"]
    assert square.tolist() == [[800, 800, 0, 0, 64, 64]]


def test_cells_of_before_the_key_still_fit(tiny_sdxl: Path, tmp_path: Path) -> None:
    assert AS_BEFORE["train", "crop"] == recipe(tiny_sdxl, tmp_path).train.crop == "center"


# --- scenes ---------------------------------------------------------------------------------------


def test_a_place_of_another_shape_gives_its_middle() -> None:
    chance = torch.Generator().manual_seed(0)
    place = torch.rand(3, 40, 40, generator=chance) * 2 - 1
    assert fitted(place, 40, 40) is place
    middle = fitted(place, 40, 20)
    assert torch.allclose(middle, place[:, :, 10:30])
    assert fitted(place, 48, 80).shape == (3, 48, 80)
    pixels, mask = torch.ones(3, 40, 20), torch.zeros(1, 40, 20)
    mask[0, 30:36, 4:10] = 1
    placement = Placement(6, 6, 12, 20, False)
    scene, where = compose(pixels, mask, box_of(mask), place, placement)
    expected = middle.clone()
    expected[:, 20:26, 12:18] = 1
    assert torch.allclose(scene, expected, atol=1e-5)
    assert torch.equal(where[0].nonzero().amin(0), torch.tensor([20, 12]))


def test_a_sheet_holds_pictures_of_any_shape() -> None:
    tall, wide = Image.new("RGB", (30, 60), "red"), Image.new("RGB", (60, 30), "blue")
    sheet = np.asarray(sheet_of([tall, wide], 120))
    assert sheet.shape == (120, 2 * 120 + GAP, 3)
    assert (sheet[60, 60] == (255, 0, 0)).all() and (sheet[60, 5] == 255).all()
    assert (sheet[60, 130] == (0, 0, 255)).all() and (sheet[5, 190] == 255).all()
    assert sheet_of([Image.new("RGB", (8, 8))] * 3, 16).size == (2 * 16 + GAP, 2 * 16 + GAP)


# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=() if name in ("sdxl", "flux") else pytest.mark.full)
        for name in FAMILIES
    ],
)
def test_every_family_trains_on_a_picture_that_is_no_square(
    family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tiny = request.getfixturevalue(f"tiny_{family}")
    unit = FAMILIES[family].pixel_multiple
    photo(tmp_path, size=(48, 120) if unit == 32 else (72, 96))
    outcome = run(
        tiny,
        tmp_path,
        train__crop="none",
        train__steps=1,
        train__preview={"every": 1, "prompts": ["a photo of a V*"]},
        sampling__steps=2,
    )
    size = training_size(recipe(tiny, tmp_path, train__crop="none"))
    assert size == {8: (56, 72), 16: (48, 80), 32: (32, 96)}[unit]
    assert outcome.adapter is not None
    said = read_origin(outcome.adapter)[1].sampling
    assert (said["width"], said["height"]) == size
    [preview] = (tmp_path / "run" / "previews" / "step-000001").glob("*.png")
    assert Image.open(preview).size == size
    kept = tmp_path / "run" / "training_pictures" / "000.png"
    assert Image.open(kept).size == size
    losses = [json.loads(one) for one in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(one["loss"]) for one in losses if "loss" in one)


def test_a_stopped_run_on_scenes_of_two_shapes_goes_on_to_the_same_bits(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLORA_CACHE", str(tmp_path / "cache"))
    both = [photo(tmp_path), photo(tmp_path, "wide.png", (96, 72))]
    masks = [str(tmp_path / f"mask{n}.png") for n in range(2)]
    for file, size in zip(masks, ((72, 96), (96, 72)), strict=True):
        mask = Image.new("L", size)
        mask.paste(255, (20, 20, 50, 50))
        mask.save(file)
    changes = {
        "concept__images": both,
        "concept__masks": masks,
        "concept__scenes": {"count": 4, "each": 1, "places": "things"},
        "train__crop": "none",
        "train__accumulation": 2,
        "sampling__steps": 1,
    }
    whole, part = tmp_path / "whole", tmp_path / "part"
    run(tiny_sdxl, whole, **changes, train__steps=4)
    run(tiny_sdxl, part, **changes, train__steps=2)
    run(tiny_sdxl, part, resume=True, **changes, train__steps=4)
    assert same_tensors(whole / "run/adapter.safetensors", part / "run/adapter.safetensors")
    with pytest.raises(UserError, match=r"train\.crop"):
        run(tiny_sdxl, part, resume=True, **{**changes, "train__crop": "center"}, train__steps=4)
