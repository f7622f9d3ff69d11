"""What is said of training pictures and masks before a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_runs import draw_picture
from validations import recipe, told

from tlora_cli.tools.preflight.image_checks import look_at_pictures


def picture(folder: Path, name: str, values: Any) -> str:
    Image.fromarray(np.asarray(values, np.uint8)).save(folder / name)
    return str(folder / name)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda base: base, ""),
        (lambda base: base[:40, :40], "is 40 x 40 and is enlarged to 64 x 64"),
        (lambda base: np.tile(base, (1, 3, 1)), "only its center square is used, and 67% is cut"),
        (lambda base: base // 12, "is very dark"),
        (lambda base: 239 + base // 16, "is very bright"),
        (lambda base: np.full_like(base, 90), "is nearly of one color"),
        (lambda base: base[..., :1].repeat(3, 2), "has no colors, so gray is learned"),
        (lambda base: np.dstack([base, base[..., 0]]), "is transparent in parts"),
    ],
)
def test_pictures_that_may_not_be_meant(
    make: Callable[[Any], Any], text: str, tiny_sdxl: Path, tmp_path: Path
) -> None:
    base = np.random.default_rng(0).integers(0, 255, (96, 96, 3))
    file = picture(tmp_path, "a.png", make(base))
    found = list(look_at_pictures(recipe(tiny_sdxl, tmp_path, concept__images=file)))
    assert text in told(found, "warning") if text else not told(found, "warning")
    assert not told(found, "problem") and len(found) == (2 if text else 1)


@pytest.mark.parametrize(
    ("mask", "level", "text"),
    [
        (lambda: np.pad(np.full((48, 48), 255), 24), "ok", "the subject is 25% of the picture"),
        (lambda: np.zeros((96, 96)), "problem", "is black"),
        (lambda: np.full((96, 96), 255), "warning", "is white everywhere and masks nothing"),
        (lambda: np.pad(np.full((6, 6), 255), 45), "warning", "leaves 0.39% of the picture"),
        (lambda: np.full((95, 96), 255), "problem", "is 96 x 95 pixels, but "),
    ],
)
def test_masks(
    mask: Callable[[], Any], level: str, text: str, tiny_sdxl: Path, tmp_path: Path
) -> None:
    file = picture(tmp_path, "mask.png", mask())
    found = list(look_at_pictures(recipe(tiny_sdxl, tmp_path, concept__masks=file)))
    assert [one.level for one in found] == ["ok", level]
    assert text in found[1].text


def test_the_same_picture_twice_and_a_turned_one(tiny_sdxl: Path, tmp_path: Path) -> None:
    one, other = draw_picture(tmp_path / "a.png"), tmp_path / "b.png"
    shutil.copy(one, other)
    turned = Image.open(draw_picture(tmp_path / "c.png", seed=1)).crop((0, 0, 96, 80))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "c.jpg", exif=exif)
    images = [str(one), str(other), str(tmp_path / "c.jpg")]
    found = list(look_at_pictures(recipe(tiny_sdxl, tmp_path, concept__images=images)))
    assert told(found, "warning") == f"{other} is the same picture as {one}"
    assert found[-1].text == f"{images[2]}: 80 x 96, trained at 64 x 64"
