"""The part of a photo that is trained on: sizes by arithmetic, pixels by Pillow alone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from drawings import assert_same, drawing
from PIL import Image

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.pictures import picture_size
from tlora_cli.photos.framing import Frame, frame_for, square
from tlora_cli.photos.training_images import load_training_images

WHOLE = frame_for("none", 1024, 16)


@pytest.mark.parametrize(
    ("photo", "size"),
    [
        ((4032, 3024), (1184, 880)),  # a phone's, on its side: 1182.4 x 886.8
        ((3024, 4032), (880, 1184)),
        ((1920, 1080), (1360, 768)),
        ((700, 700), (1024, 1024)),
        ((10000, 100), (2048, 512)),  # four times as long as wide at most
    ],
)
def test_a_photo_keeps_its_shape_at_as_many_pixels(
    photo: tuple[int, int], size: tuple[int, int]
) -> None:
    assert WHOLE.size(photo) == size
    assert square(1024).size(photo) == frame_for("subject", 1024, 16).size(photo) == (1024, 1024)


def test_whatever_the_photo_the_sides_fit_and_nearly_nothing_is_cut() -> None:
    chance = np.random.default_rng(0)
    for _ in range(500):
        width, height = (int(side) for side in chance.integers(300, 5000, 2))
        if max(width, height) > 4 * min(width, height):
            continue
        across, down = WHOLE.size((width, height))
        assert across % 16 == down % 16 == 0
        assert abs(across * down / 1024**2 - 1) < 0.03
        left, top, right, bottom = WHOLE.box((width, height))
        assert left >= 0 and right <= width and top >= 0 and bottom <= height
        assert (right - left) * (bottom - top) > 0.96 * width * height
        assert abs((right - left) / (bottom - top) / (across / down) - 1) < 0.01
        assert abs(left + right - width) <= 1 and abs(top + bottom - height) <= 1


def by_pillow(picture: Image.Image, box: tuple[int, ...], size: tuple[int, int]) -> torch.Tensor:
    small = np.asarray(picture.crop(box).resize(size, Image.Resampling.LANCZOS))  # type: ignore[arg-type]
    return torch.from_numpy(small.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)


def test_pixels_of_a_whole_photo(tmp_path: Path) -> None:
    """Of 60 x 90 at 32 squared, by 8: 26.1 x 39.2 become 24 x 40, of which 54 x 90 have the shape.

    The photo lies on its side in its file.
    """
    picture, file = drawing(60, 90), tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)
    assert picture_size(file, "a") == (60, 90)
    [image] = load_training_images(str(file), None, frame_for("none", 32, 8))
    assert (image.part, image.size, image.pixels.shape) == ((54, 90), (24, 40), (3, 40, 24))
    assert_same(image.pixels, by_pillow(picture, (3, 0, 57, 90), (24, 40)))


@pytest.mark.parametrize(
    ("subject", "left"),
    [((60, 80), 50), ((0, 10), 0), ((85, 90), 50), ((10, 40), 5), ((36, 37), 16)],
)
def test_a_square_around_the_subject(subject: tuple[int, int], left: int, tmp_path: Path) -> None:
    """Of 90 x 40: the square of 40 has the subject in its middle, or is at the border."""
    picture, mask = drawing(90, 40), Image.new("L", (90, 40), 20)  # 20: nearly black everywhere
    mask.paste(255, (subject[0], 12, subject[1], 30))
    picture.save(tmp_path / "a.png")
    mask.save(tmp_path / "mask.png")
    files = str(tmp_path / "a.png"), str(tmp_path / "mask.png")
    [image] = load_training_images(*files, frame_for("subject", 16, 8))
    box = (left, 0, left + 40, 40)
    assert image.part == (40, 40)
    assert_same(image.pixels, by_pillow(picture, box, (16, 16)))
    small = np.asarray(mask.crop(box).resize((16, 16), Image.Resampling.BOX))
    assert image.mask is not None
    assert_same(image.mask * 2 - 1, torch.from_numpy(small / np.float32(127.5) - 1)[None])


def test_a_subject_that_is_not_known_or_all_of_the_photo_is_as_published() -> None:
    around, photo = Frame(16, 16, around_subject=True), (90, 41)
    assert around.box(photo) == square(16).box(photo) == (24, 0, 65, 41)
    assert around.box(photo, (0, 0, 90, 41)) == (24, 0, 65, 41)


def test_a_black_mask_still_has_its_own_message(tmp_path: Path) -> None:
    drawing(90, 40).save(tmp_path / "a.png")
    Image.new("L", (90, 40)).save(tmp_path / "mask.png")
    files = str(tmp_path / "a.png"), str(tmp_path / "mask.png")
    with pytest.raises(UserError, match="is black"):
        load_training_images(*files, frame_for("subject", 16, 8))


def test_the_area_of_a_square_is_exact() -> None:
    assert all(math.sqrt(side * side) == side for side in range(8, 4097))
