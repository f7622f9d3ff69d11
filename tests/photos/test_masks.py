"""Masks of training pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from drawings import blob, drawing, refused
from PIL import Image

from tlora_cli.photos.training_images import latent_mask, load_training_images


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """Return a picture and its mask."""
    (tmp_path / "masks").mkdir()
    drawing().save(tmp_path / "a.png")
    blob().save(tmp_path / "masks" / "a.png")
    return str(tmp_path / "a.png"), str(tmp_path / "masks" / "a.png")


def one_mask(image: str | list[str], mask: str | list[str], resolution: int = 10) -> torch.Tensor:
    [loaded] = load_training_images(image, mask, resolution)
    assert loaded.mask is not None
    assert loaded.mask.dtype == torch.float32
    assert loaded.mask.shape == (1, resolution, resolution)
    return loaded.mask


def test_mask_is_cropped_and_averaged_like_its_picture(pair: tuple[str, str]) -> None:
    square = torch.from_numpy(np.asarray(blob())[:, 4:44] / 255).float()
    expected = square.view(10, 4, 10, 4).mean(dim=(1, 3))[None]
    torch.testing.assert_close(one_mask(*pair), expected, rtol=0, atol=1 / 255)


@pytest.mark.filterwarnings("ignore:.*is enlarged")
def test_mask_is_enlarged_without_overshoot(pair: tuple[str, str]) -> None:
    mask = one_mask(*pair, resolution=80)
    assert mask.min() == 0
    assert mask.max() == 1
    assert abs(mask.mean() - np.asarray(blob())[:, 4:44].mean() / 255) < 0.01


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_mask_modes(pair: tuple[str, str], mode: str) -> None:
    hard = blob().point(lambda level: 255 * (level > 127))
    hard.save(pair[1])
    expected = one_mask(*pair)
    hard.convert(mode).save(pair[1])
    assert torch.equal(one_mask(*pair), expected)


def test_cut_out_subject_as_mask(pair: tuple[str, str]) -> None:
    expected = one_mask(*pair)
    white = Image.new("RGB", blob().size, "white")
    white.putalpha(blob())
    white.save(pair[1])
    torch.testing.assert_close(one_mask(*pair), expected, rtol=0, atol=1.01 / 255)


def test_masks_by_name_and_by_position(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(3):
        drawing().save(tmp_path / "images" / f"{number}.jpg")
        level = 100 + 50 * number
        Image.new("L", (48, 40), level).save(tmp_path / "masks" / f"{number}.png")
    Image.new("L", (9, 9)).save(tmp_path / "masks" / "unused.png")
    loaded = load_training_images(str(tmp_path / "images"), str(tmp_path / "masks"), 16)
    levels = [round(float(image.mask.mean() * 255)) for image in loaded]
    assert levels == [100, 150, 200]
    backwards = [str(tmp_path / "masks" / f"{number}.png") for number in (2, 1, 0)]
    loaded = load_training_images(str(tmp_path / "images"), backwards, 16)
    levels = [round(float(image.mask.mean() * 255)) for image in loaded]
    assert levels == [200, 150, 100]


def test_masks_that_do_not_fit(tmp_path: Path, pair: tuple[str, str]) -> None:
    image, mask = pair
    folder = str(Path(mask).parent)
    key = "concept.masks"
    refused(key, "2 pictures and 1 masks", call=lambda: load_training_images([image] * 2, mask, 16))
    refused(key, "gone.png", call=lambda: load_training_images(image, "gone.png", 16))
    refused(key, "its own mask", call=lambda: load_training_images(image, image, 16))
    drawing().save(tmp_path / "b.png")
    refused(key, "b.png", call=lambda: load_training_images(str(tmp_path / "b.png"), folder, 16))
    blob().save(Path(folder) / "a.jpg")
    refused(key, "2 masks", "a.jpg", call=lambda: load_training_images(image, folder, 16))


def test_mask_must_be_as_large_as_its_picture(pair: tuple[str, str]) -> None:
    blob(40, 48).save(pair[1])
    words = ("concept.masks", pair[0], pair[1], "40 x 48", "48 x 40")
    refused(*words, call=lambda: one_mask(*pair))


def test_mask_size_counts_after_turning(pair: tuple[str, str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    drawing().transpose(Image.Transpose.ROTATE_90).save(pair[0], exif=exif)
    assert one_mask(*pair).max() == 1


def test_black_masks(pair: tuple[str, str]) -> None:
    Image.new("L", (48, 40)).save(pair[1])
    refused("concept.masks", pair[1], "is black\n", call=lambda: one_mask(*pair))
    aside = Image.new("L", (48, 40))
    aside.paste(255, (0, 0, 4, 40))
    aside.save(pair[1])
    refused("concept.masks", "black in the part that is used", call=lambda: one_mask(*pair))


def test_bad_mask_file(pair: tuple[str, str]) -> None:
    Path(pair[1]).write_text("no picture")
    refused("concept.masks", pair[1], "can't be read", call=lambda: one_mask(*pair))


def test_shipped_photo_and_mask() -> None:
    assets = Path(__file__).resolve().parents[2] / "assets"
    photo, mask = (str(assets / name) for name in ("photo.jpg", "photo_mask.png"))
    [image] = load_training_images(photo, mask, 512)
    assert image.part == (512, 512)
    assert image.mask is not None
    assert 0.2 < image.mask.mean() < 0.4
    red = image.pixels[0] - image.pixels[1:].amax(dim=0) > 0.6  # the collar
    assert red.sum() > 1000
    assert image.mask[0][red].mean() > 0.98


def test_latent_mask_averages() -> None:
    mask = torch.rand(1, 16, 24)
    expected = mask.view(1, 2, 8, 3, 8).mean(dim=(2, 4))
    torch.testing.assert_close(latent_mask(mask, 2, 3), expected)
    assert latent_mask(mask, 5, 7).shape == (1, 5, 7)
    assert torch.equal(latent_mask(torch.ones(1, 16, 16), 3, 3), torch.ones(1, 3, 3))
