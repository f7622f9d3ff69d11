"""Photographs mean the colors that their file says; models get these colors in sRGB.

Profiles are written here byte by byte (ICC.1:2022), and pictures are put into a color space by this
file's own formulas, so that the program is held against something else than itself.
"""

from __future__ import annotations

import struct
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin, features
from training_runs import run

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.pictures import read_picture
from tlora_cli.photos.masks.finder import MaskFinder

D50 = (0.9642, 1.0, 0.8249)
SRGB_D50 = np.array([[0.4360, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
"""Linear sRGB -> XYZ under D50, as in the profiles of IEC 61966-2-1."""
SPACES = {
    "P3": ([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]], 2.2),
    "Adobe RGB": (
        [[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]], 2.2
    ),
    "ProPhoto": (
        [[0.7977, 0.1352, 0.0313], [0.2880, 0.7119, 0.0001], [0.0, 0.0, 0.8249]], 1.8
    ),
}  # fmt: skip
"""Name -> the matrix of its profile, and its gamma."""


def tag(signature: bytes, *numbers: float) -> bytes:
    return signature + bytes(4) + b"".join(struct.pack(">i", round(n * 65536)) for n in numbers)


def curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return an ICC profile of version 2."""
    text = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags = {b"desc": text, b"cprt": b"text" + bytes(5), b"wtpt": tag(b"XYZ ", *D50), **tags}
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += name + struct.pack(">II", start + len(body), len(value))
        body += padded
    head = struct.pack(">I4sI", start + len(body), bytes(4), 0x02100000) + b"mntr" + space + b"XYZ "
    head += bytes(12) + b"acsp" + bytes(28) + tag(b"", *D50)[4:] + bytes(48)
    assert len(head) == 128
    return head + struct.pack(">I", len(tags)) + table + body


def rgb_profile(name: str) -> bytes:
    matrix, gamma = SPACES[name]
    columns = zip(b"rgb", np.array(matrix).T, strict=True)
    points = {bytes([c]) + b"XYZ": tag(b"XYZ ", *column) for c, column in columns}
    return profile(b"RGB ", {**points, **{bytes([c]) + b"TRC": curve(gamma) for c in b"rgb"}})


def linear(values: Any) -> Any:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def in_space(picture: Image.Image, name: str) -> Image.Image:
    """Return the numbers that stand in a space for the colors of an sRGB picture."""
    matrix, gamma = SPACES[name]
    xyz = linear(np.asarray(picture) / 255) @ SRGB_D50.T
    values = (xyz @ np.linalg.inv(np.array(matrix)).T).clip(0, 1) ** (1 / gamma)
    return Image.fromarray((values * 255).round().astype(np.uint8))


def colors() -> Image.Image:
    """Return a picture of colors that every space holds, none of them nearly black."""
    levels = np.linspace(40, 250, 8).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1)
    return Image.fromarray(cube.reshape(16, 32, 3))


def apart(a: Image.Image, b: Image.Image) -> Any:
    return np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int))


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("kind", ["png", "tif", "webp", "palette", "transparent"])
def test_a_profile_is_obeyed(kind: str, name: str, tmp_path: Path) -> None:
    stored, file = in_space(colors(), name), tmp_path / "a.png"
    options: dict[str, Any] = {"icc_profile": rgb_profile(name)}
    if kind == "palette":
        stored = in_space(colors().resize((4, 4), Image.Resampling.NEAREST), name).quantize(16)
    elif kind == "transparent":
        stored.putalpha(Image.new("L", stored.size, 255))
        stored.putpixel((0, 0), (0, 0, 0, 0))
    elif kind != "png":
        file = tmp_path / f"a.{kind}"
        options |= {"lossless": True} if kind == "webp" else {}
    stored.save(file, **options)
    read = read_picture(file, "x", "RGB")
    wanted = colors().resize((4, 4), Image.Resampling.NEAREST) if kind == "palette" else colors()
    if kind == "transparent":
        assert read.getpixel((0, 0)) == (255, 255, 255)
        wanted.putpixel((0, 0), (255, 255, 255))
    assert read.mode == "RGB" and "icc_profile" not in read.info, "a copy isn't shown wrongly"
    assert apart(read, wanted).max() <= 5 and apart(read, wanted).mean() < 0.8
    assert apart(stored.convert("RGB"), wanted).mean() > 5, "the numbers were others"


def test_a_jpeg_of_a_phone_is_turned_and_colored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    one = Image.new("RGB", (64, 32), (220, 120, 40))
    one.paste((40, 120, 220), (0, 0, 32, 32))
    options: dict[str, Any] = {"quality": 100, "subsampling": 0, "exif": exif}
    in_space(one, "P3").save(tmp_path / "a.jpg", icc_profile=rgb_profile("P3"), **options)
    read = read_picture(tmp_path / "a.jpg", "x", "RGB")
    assert read.size == (32, 64)
    assert np.allclose(read.getpixel((16, 50)), (220, 120, 40), atol=3)
    assert np.allclose(read.getpixel((16, 10)), (40, 120, 220), atol=3)


def test_a_gray_profile_is_obeyed(tmp_path: Path) -> None:
    ramp = np.arange(30, 256, dtype=np.uint8).reshape(1, -1)
    data = profile(b"GRAY", {b"kTRC": curve(1.8)})
    light = (ramp / 255) ** 1.8
    wanted = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    Image.fromarray(ramp).save(tmp_path / "8.png", icc_profile=data)
    deep = Image.fromarray(ramp.astype(np.uint16) * 257)
    deep.save(tmp_path / "16.png", icc_profile=data)
    Image.merge("LA", [Image.fromarray(ramp), Image.fromarray(ramp * 0 + 255)]).save(
        tmp_path / "alpha.png", icc_profile=data
    )
    assert np.abs(wanted - ramp).max() > 10
    for name in ("8", "16", "alpha"):
        read = np.asarray(read_picture(tmp_path / f"{name}.png", "x", "RGB")).astype(float)
        assert np.abs(read - wanted[..., None]).max() <= 1.5, name


def test_a_picture_in_srgb_keeps_its_numbers(tmp_path: Path) -> None:
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    colors().save(tmp_path / "with.png", icc_profile=data)
    colors().save(tmp_path / "without.png")
    for name in ("with", "without"):
        assert not apart(read_picture(tmp_path / f"{name}.png", "x", "RGB"), colors()).any()


def test_a_mask_is_no_color(tmp_path: Path) -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    ramp.save(tmp_path / "m.png", icc_profile=profile(b"GRAY", {b"kTRC": curve(1.8)}))
    assert not apart(read_picture(tmp_path / "m.png", "x", "L"), ramp).any()


TOLD = {
    "damaged": ("RGB", b"no profile at all", "its color profile is damaged"),
    "of other channels": ("RGB", profile(b"GRAY", {b"kTRC": curve(1.8)}), "is for GRAY, not for"),
    "CMYK without one": ("CMYK", None, "has printing colors (CMYK) and no profile"),
    "CMYK with RGB's": ("CMYK", rgb_profile("P3"), "is for RGB, not for its channels (CMYK)"),
}


@pytest.mark.parametrize(("mode", "data", "told"), TOLD.values(), ids=TOLD)
def test_what_is_not_understood_is_told_and_read_as_before(
    mode: str, data: bytes | None, told: str, tmp_path: Path
) -> None:
    made = colors().convert(mode)
    made.save(tmp_path / "a.tif", **({"icc_profile": data} if data else {}))
    with pytest.warns(UserWarning) as said:
        read = read_picture(tmp_path / "a.tif", "x", "RGB")
    assert told in str(said[0].message) and "a.tif" in str(said[0].message)
    assert not apart(read, made.convert("RGB")).any()


def test_a_camera_that_says_adobe_rgb_in_exif_alone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF  # uncalibrated
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    stored = in_space(colors(), "Adobe RGB").resize((512, 256), Image.Resampling.NEAREST)
    stored.save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    read = read_picture(tmp_path / "a.jpg", "x", "RGB")
    wanted = colors().resize((512, 256), Image.Resampling.NEAREST)
    assert apart(read, wanted).mean() < 1, apart(read, wanted).max()
    assert apart(stored, wanted).mean() > 5


def test_colors_of_no_known_space_are_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF
    colors().save(tmp_path / "a.jpg", exif=exif)
    with pytest.warns(UserWarning, match="its EXIF says that its colors are not sRGB"):
        read_picture(tmp_path / "a.jpg", "x", "RGB")


def png(file: Path, picture: Image.Image, gamma: float, points: list[float]) -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", round(gamma * 1e5)))
    info.add(b"cHRM", struct.pack(">8I", *(round(one * 1e5) for one in points)))
    picture.save(file, pnginfo=info)


def test_a_png_of_linear_light_is_brightened(tmp_path: Path) -> None:
    usual = [0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06]
    light = (linear(np.asarray(colors()) / 255) * 255).round().astype(np.uint8)
    png(tmp_path / "a.png", Image.fromarray(light), 1.0, usual)
    read = read_picture(tmp_path / "a.png", "x", "RGB")
    assert apart(read, colors()).max() <= 10 and apart(read, colors()).mean() < 2
    png(tmp_path / "b.png", colors(), 0.45455, usual)
    assert not apart(read_picture(tmp_path / "b.png", "x", "RGB"), colors()).any()


def test_a_png_with_the_primaries_of_adobe_rgb(tmp_path: Path) -> None:
    points = [0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06]
    png(tmp_path / "a.png", in_space(colors(), "Adobe RGB"), 1 / 2.2, points)
    read = read_picture(tmp_path / "a.png", "x", "RGB")
    assert apart(read, colors()).max() <= 4


def test_training_and_masks_see_the_colors(tiny_sdxl: Path, tmp_path: Path) -> None:
    photo, one = tmp_path / "photo.png", Image.new("RGB", (96, 96), (90, 140, 200))
    one.paste((220, 120, 40), (24, 24, 72, 72))
    in_space(one, "ProPhoto").save(photo, icc_profile=rgb_profile("ProPhoto"))
    run(tiny_sdxl, tmp_path, train__steps=1)
    kept = Image.open(tmp_path / "run" / "training_pictures" / "000.png").convert("RGB")
    assert np.allclose(kept.getpixel((kept.width // 2,) * 2), (220, 120, 40), atol=4)
    assert MaskFinder().find(photo, "x").mask is not None


# --- formats of phones ----------------------------------------------------------------------------


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read_upright_and_in_its_colors(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    one = Image.new("RGB", (64, 32), (220, 120, 40))
    file = tmp_path / "a.avif"
    in_space(one, "P3").save(file, icc_profile=rgb_profile("P3"), exif=exif, quality=95)
    read = read_picture(file, "x", "RGB")
    assert read.size == (32, 64) and np.allclose(read.getpixel((16, 32)), (220, 120, 40), atol=4)


def test_heic_is_read_in_its_colors(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="pip install 'tlora[heic]'")
    heif.register_heif_opener()
    one = Image.new("RGB", (64, 32), (220, 120, 40))
    file = tmp_path / "IMG_0001.HEIC"
    in_space(one, "P3").save(file, "HEIF", icc_profile=rgb_profile("P3"), quality=95)
    read = read_picture(file, "x", "RGB")  # libheif itself turns what a phone marks as turned
    assert read.size == (64, 32) and np.allclose(read.getpixel((32, 16)), (220, 120, 40), atol=4)


def test_without_a_reader_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlora_cli.foundation import pictures

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    known = frozenset(Image.OPEN) - {"HEIF", "AVIF"}
    monkeypatch.setattr(pictures, "_known_formats", lambda: known)
    pictures._use_pillow_heif.cache_clear()
    for brand, told in ((b"heic", "tlora[heic]"), (b"mif1", "tlora[heic]"), (b"avif", "pillow")):
        file = tmp_path / "photo.jpg"
        file.write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(500))
        with pytest.raises(UserError) as refused:
            read_picture(file, "x", "RGB")
        assert told in refused.value.do and "as phones take photos" in refused.value.what
    pictures._use_pillow_heif.cache_clear()


def test_a_damaged_heic_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(500))
    with pytest.raises(UserError, match="can't be read"), warnings.catch_warnings():
        read_picture(tmp_path / "a.heic", "x", "RGB")
