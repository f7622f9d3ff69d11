"""Pictures become the right tensors, and every bad file a message that names it."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from drawings import KEY, assert_same, blob, drawing, load, reference, refused
from PIL import Image

from tlora_cli.photos.finding import find_images
from tlora_cli.photos.folder import EXTENSIONS
from tlora_cli.photos.training_images import load_training_images

# --- finding --------------------------------------------------------------------------------------


def test_finds_a_picture_a_list_and_a_folder(tmp_path: Path) -> None:
    names = [
        f"{letter}{ending}" for letter, ending in zip("gfedcbahijklmn", EXTENSIONS, strict=True)
    ]
    for name in [*names, "H.JPG"]:
        drawing().convert("L").save(tmp_path / name, format="png")
    for name in (".hidden.png", "notes.txt", "g.jpg.bak"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    drawing().save(tmp_path / "folder.png" / "deep.png")
    with pytest.warns(UserWarning, match="left out"):
        found = find_images(str(tmp_path), KEY)
    assert [path.name for path in found] == ["H.JPG", *sorted(names)]
    assert find_images(str(tmp_path / "g.jpg"), KEY) == [tmp_path / "g.jpg"]
    wanted = [tmp_path / "g.jpg", tmp_path / "a.bmp"]
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
    assert image.part == (min(size),) * 2
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
