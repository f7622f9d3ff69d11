"""Pictures become the right tensors, and every bad file a message that names it."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.training_images import (
    EXTENSIONS,
    find_images,
    latent_mask,
    load_training_images,
)

KEY = "concept.images"


def drawing(width: int = 48, height: int = 40) -> Image.Image:
    """Return an RGB picture without any symmetry."""
    rows, columns = np.mgrid[0:height, 0:width]
    red = (columns * 5 + rows) % 256
    green = (rows * 6) % 256
    blue = ((columns // 8 + rows // 8) % 2) * 200
    return Image.fromarray(np.stack([red, green, blue], axis=2).astype(np.uint8))


def blob(width: int = 48, height: int = 40) -> Image.Image:
    """Return a mask with a soft edge, off the center."""
    rows, columns = np.mgrid[0:height, 0:width]
    distance = np.hypot(columns - width * 0.55, rows - height * 0.4)
    return Image.fromarray((255 * np.clip(12 - distance, 0, 1)).astype(np.uint8))


def load(path: Path, resolution: int = 16) -> torch.Tensor:
    [image] = load_training_images(str(path), None, resolution)
    assert image.path == path
    assert image.mask is None
    assert image.pixels.dtype == torch.float32
    assert image.pixels.shape == (3, resolution, resolution)
    return image.pixels


def reference(picture: Image.Image, resolution: int = 16) -> torch.Tensor:
    """Return the published preparation of an RGB picture, written out with Pillow."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    small = np.asarray(square.resize((resolution, resolution), Image.Resampling.LANCZOS))
    return torch.from_numpy(small.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)


def assert_same(got: torch.Tensor, expected: torch.Tensor, levels: float = 0.01) -> None:
    """Compare within so many of the 255 levels."""
    torch.testing.assert_close(got, expected, rtol=0, atol=levels / 127.5)


def refused(*words: str, call: Callable[[], object]) -> None:
    """Check that the call raises a UserError with these words and a remedy."""
    with pytest.raises(UserError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
    assert caught.value.do


# --- finding --------------------------------------------------------------------------------------


def test_finds_a_picture_a_list_and_a_folder(tmp_path: Path) -> None:
    names = [f"{letter}{ending}" for letter, ending in zip("gfedcba", EXTENSIONS, strict=True)]
    for name in [*names, "H.JPG"]:
        drawing().convert("L").save(tmp_path / name, format="png")
    for name in (".hidden.png", "notes.txt", "g.jpg.bak"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    drawing().save(tmp_path / "folder.png" / "deep.png")
    found = find_images(str(tmp_path), KEY)
    assert [path.name for path in found] == ["H.JPG", *sorted(names)]
    assert find_images(str(tmp_path / "g.jpg"), KEY) == [tmp_path / "g.jpg"]
    wanted = [tmp_path / "g.jpg", tmp_path / "a.tiff"]
    assert find_images([str(path) for path in wanted], KEY) == wanted


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    drawing().save(tmp_path / "a.png")
    assert find_images("~/a.png", KEY) == find_images("~", KEY) == [tmp_path / "a.png"]


def test_any_name_will_do_for_a_file(tmp_path: Path) -> None:
    drawing().save(tmp_path / "picture", format="png")
    assert_same(load(tmp_path / "picture"), reference(drawing()))


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("key", [KEY, "concept.prior.images"])
def test_missing_file(tmp_path: Path, as_list: bool, key: str) -> None:
    name = str(tmp_path / "gone.jpg")
    refused("gone.jpg", key, call=lambda: find_images([name] if as_list else name, key))


def test_nothing_found(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    refused(str(tmp_path), KEY, "no picture", call=lambda: find_images(str(tmp_path), KEY))
    refused(KEY, "empty", call=lambda: find_images([], KEY))


def test_a_list_holds_files_only(tmp_path: Path) -> None:
    refused(str(tmp_path), "not a file", KEY, call=lambda: find_images([str(tmp_path)], KEY))


def test_odd_files(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name, words in (("link.png", "broken link"), ("pipe.png", "not a file")):
        path = str(tmp_path / name)
        refused(name, words, KEY, call=lambda path=path: find_images(path, KEY))
    refused("link.png", KEY, call=lambda: find_images(str(tmp_path), KEY))
    refused("can't be opened", KEY, call=lambda: find_images("x" * 5000, KEY))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_forbidden_file(tmp_path: Path) -> None:
    drawing().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    refused("a.png", KEY, "Permission", call=lambda: load(tmp_path / "a.png"))


# --- pixels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(48, 40), (40, 48), (33, 20), (20, 33), (16, 16), (17, 16)])
def test_center_crop_and_lanczos(tmp_path: Path, size: tuple[int, int]) -> None:
    drawing(*size).save(tmp_path / "a.png")
    [image] = load_training_images(str(tmp_path / "a.png"), None, 16)
    assert image.crop == min(size)
    assert_same(image.pixels, reference(drawing(*size)))
    assert image.pixels.min() >= -1
    assert image.pixels.max() <= 1


def test_black_and_white_are_the_ends(tmp_path: Path) -> None:
    for level, value in ((0, -1.0), (255, 1.0)):
        Image.new("L", (20, 20), level).save(tmp_path / "a.png")
        assert torch.equal(load(tmp_path / "a.png"), torch.full((3, 16, 16), value))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_obeyed(tmp_path: Path, orientation: int) -> None:
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    picture = drawing() if stored is None else drawing().transpose(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    assert_same(load(tmp_path / "a.png"), reference(drawing()))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    picture = drawing().convert(mode)
    picture.save(tmp_path / "a.tif")
    assert_same(load(tmp_path / "a.tif"), reference(picture.convert("RGB")))


def test_jpeg_and_webp(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.webp"):
        drawing().save(tmp_path / name, quality=95)
        with Image.open(tmp_path / name) as decoded:
            assert_same(load(tmp_path / name), reference(decoded.convert("RGB")))


def test_16_bits_keep_their_brightness(tmp_path: Path) -> None:
    gray = drawing().convert("L")
    deep = np.asarray(gray).astype(np.uint16) * 257
    for name in ("a.png", "a.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        with Image.open(tmp_path / name) as stored:
            assert stored.mode.startswith("I")
        assert_same(load(tmp_path / name), reference(gray.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_white(tmp_path: Path, mode: str) -> None:
    picture = drawing().convert("LA" if mode == "LA" else "RGB")
    picture.putalpha(blob())
    picture.save(tmp_path / "a.png")
    color = np.asarray(picture.convert("RGB")).astype(float)
    alpha = np.asarray(blob()).astype(float)[:, :, None] / 255
    on_white = (color * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    assert_same(load(tmp_path / "a.png"), reference(Image.fromarray(on_white)), levels=1.01)


def test_transparent_palette_color_is_white(tmp_path: Path) -> None:
    picture = Image.new("P", (20, 20), 1)
    picture.putpalette([0, 0, 0, 250, 10, 10])
    picture.save(tmp_path / "a.png", transparency=1)
    assert torch.equal(load(tmp_path / "a.png"), torch.ones(3, 16, 16))


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in ("white", "black")]
    for name in ("a.webp", "a.png", "a.gif", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50)
        assert_same(load(tmp_path / name), torch.ones(3, 16, 16), levels=1.01)


def test_enlarging_warns(tmp_path: Path) -> None:
    drawing(40, 15).save(tmp_path / "small.png")
    with pytest.warns(UserWarning, match=r"small\.png is 40 x 15 pixels and is enlarged"):
        load(tmp_path / "small.png")
    drawing(40, 16).save(tmp_path / "enough.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path / "enough.png")


# --- bad files ------------------------------------------------------------------------------------


def claimed_png(path: Path, width: int, height: int) -> None:
    """Write a PNG of some bytes that claims a size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.bmp"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
def test_truncated_file(tmp_path: Path, name: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * kept)])
    refused(name, KEY, "can't be read", call=lambda: load(tmp_path / name))


@pytest.mark.parametrize("start", ["", "not a picture", "%!PS-Adobe-3.0 EPSF-3.0\n", "GIF89a"])
def test_no_picture(tmp_path: Path, start: str) -> None:
    (tmp_path / "a.jpg").write_text(start)
    refused("a.jpg", KEY, "" if start else "empty", call=lambda: load(tmp_path / "a.jpg"))


@pytest.mark.parametrize("size", [(14000, 13000), (60000, 60000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.parametrize("pillow_limit", [None, Image.MAX_IMAGE_PIXELS])
def test_picture_bomb(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    pillow_limit: int | None,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
    claimed_png(tmp_path / "bomb.png", *size)
    refused("bomb.png", KEY, "million", call=lambda: load(tmp_path / "bomb.png"))


def test_large_picture_passes_without_a_bomb_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    drawing().save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path / "a.png")


def test_no_pixels(tmp_path: Path) -> None:
    claimed_png(tmp_path / "a.png", 0, 5)
    refused("a.png", KEY, call=lambda: load(tmp_path / "a.png"))


def test_unknown_ranges(tmp_path: Path) -> None:
    for values in (np.ones((20, 20), np.float32), np.full((20, 20), 2**20, np.int32)):
        Image.fromarray(values).save(tmp_path / "a.tif")
        refused("a.tif", KEY, "its values", call=lambda: load(tmp_path / "a.tif"))


# --- masks ----------------------------------------------------------------------------------------


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
    refused("concept.masks", "black in the center square", call=lambda: one_mask(*pair))


def test_bad_mask_file(pair: tuple[str, str]) -> None:
    Path(pair[1]).write_text("no picture")
    refused("concept.masks", pair[1], "can't be read", call=lambda: one_mask(*pair))


def test_shipped_photo_and_mask() -> None:
    assets = Path(__file__).resolve().parents[2] / "assets"
    photo, mask = (str(assets / name) for name in ("photo.jpg", "photo_mask.png"))
    [image] = load_training_images(photo, mask, 512)
    assert image.crop == 512
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
