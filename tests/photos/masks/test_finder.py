"""Masks that are found by themselves, on pictures whose subject is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from drawings import refused
from PIL import Image

from tlora_cli.photos.masks import finder
from tlora_cli.photos.masks.finder import FoundMask, MaskFinder, Seen, coverage_of
from tlora_cli.photos.masks.saliency import standing_out
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.renderer import draw

ASSETS = Path(__file__).resolve().parents[3] / "assets"


def scene(*centers: tuple[float, float], side: int = 128, radius: float = 0.2) -> np.ndarray:
    """Return noisy blue-green ground and red disks; centers and radius in picture sides."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:side, 0:side] / side
    values = np.stack([40 + 30 * x, 120 + 40 * y, 150 - 30 * x], 2)
    values += rng.normal(0, 4, values.shape)
    for right, down in centers:
        inside = np.hypot(x - right, y - down) < radius
        values[inside] = rng.normal((210, 60, 50), 8, (int(inside.sum()), 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def disk(right: float, down: float, side: int = 128, radius: float = 0.2) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side] / side
    return np.hypot(x - right, y - down) < radius


def find(folder: Path, values: np.ndarray | Image.Image, name: str = "photo.png") -> FoundMask:
    picture = values if isinstance(values, Image.Image) else Image.fromarray(values)
    picture.save(folder / name)
    found = MaskFinder().find(folder / name, "concept.images")
    assert found.mask.mode == "L" and found.mask.size == found.photo.size
    return found


def overlap(mask: Image.Image, truth: np.ndarray) -> float:
    """Return intersection over union."""
    white = np.asarray(mask) > 127
    return float((white & truth).sum() / (white | truth).sum())


@pytest.mark.parametrize(
    ("center", "radius"),
    [
        pytest.param((0.3, 0.6), 0.3, id="aside"),
        pytest.param((0.0, 0.5), 0.3, id="half of it outside"),
        pytest.param((0.5, 0.5), 0.2, id="middle", marks=pytest.mark.full),
        pytest.param((0.5, 0.95), 0.3, id="cut by the lower border", marks=pytest.mark.full),
    ],
)
def test_a_subject_of_its_own_color_is_found(
    center: tuple[float, float], radius: float, tmp_path: Path
) -> None:
    found = find(tmp_path, scene(center, radius=radius))
    truth = disk(*center, radius=radius)
    assert found.doubt is None and found.by == "GrabCut"
    assert overlap(found.mask, truth) > 0.95
    assert found.coverage == pytest.approx(truth.mean(), abs=0.01)


def test_a_photo_with_a_known_mask() -> None:
    found = MaskFinder().find(ASSETS / "photo.jpg", "concept.images")
    truth = np.asarray(Image.open(ASSETS / "photo_mask.png").convert("L")) > 127
    assert found.doubt is None and overlap(found.mask, truth) > 0.93


OTHERS = [pytest.param(name, marks=pytest.mark.full) for name in ("momo", "casa")]


@pytest.mark.parametrize("name", ["pip", *OTHERS])
def test_drawings_of_the_world(name: str, tmp_path: Path) -> None:
    drawn = draw(CONCEPTS[name].scenes()[0])
    found = find(tmp_path, drawn.image)
    assert found.doubt is None
    assert overlap(found.mask, np.asarray(drawn.mask) > 127) > 0.85


def test_the_same_photo_gives_the_same_bits_on_any_number_of_threads(tmp_path: Path) -> None:
    threads = cv2.getNumThreads()
    try:
        masks = []
        for number in (1, 2):
            cv2.setNumThreads(number)
            cv2.setRNGSeed(number)
            masks.append(find(tmp_path, scene((0.4, 0.6))).mask.tobytes())
    finally:
        cv2.setNumThreads(threads)
    assert masks[0] == masks[1]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_alpha_channel_is_taken_as_it_is(kind: str, tmp_path: Path) -> None:
    soft = Image.fromarray((disk(0.5, 0.5) * 255).astype(np.uint8)).resize((100, 100))
    picture = Image.fromarray(scene((0.2, 0.2))).resize((100, 100))
    picture.putalpha(soft)
    file = tmp_path / f"cut.{kind.lower()}"
    picture.save(file, kind, lossless=True)
    found = MaskFinder(model="never/loaded", word="dog").find(file, "concept.images")
    assert found.by == "alpha channel" and found.doubt is None
    assert found.mask.tobytes() == soft.tobytes()


def test_an_alpha_channel_that_is_full_says_nothing(tmp_path: Path) -> None:
    picture = Image.fromarray(scene((0.5, 0.5)))
    picture.putalpha(255)
    assert find(tmp_path, picture).by == "GrabCut"


def test_an_alpha_channel_with_nothing_or_nearly_all_in_it(tmp_path: Path) -> None:
    picture = Image.fromarray(scene())
    picture.putalpha(0)
    assert "covers nothing: no subject was found" in (find(tmp_path, picture).doubt or "")
    corners = np.full((128, 128), 255, np.uint8)
    corners[:3, :3] = 0
    picture.putalpha(Image.fromarray(corners))
    assert "covers 100% of the photo" in (find(tmp_path, picture).doubt or "")


def test_two_subjects(tmp_path: Path) -> None:
    found = find(tmp_path, scene((0.25, 0.5), (0.75, 0.5), radius=0.15))
    assert "more than one subject" in (found.doubt or "")
    both = disk(0.25, 0.5, radius=0.15) | disk(0.75, 0.5, radius=0.15)
    assert overlap(found.mask, both) > 0.95, "its overlay shows both"


def test_a_small_thing_beside_the_subject_is_left_out(tmp_path: Path) -> None:
    values = scene((0.4, 0.5), radius=0.25)
    values[disk(0.9, 0.1, radius=0.05)] = [210, 60, 50]
    found = find(tmp_path, values)
    assert found.doubt is None and overlap(found.mask, disk(0.4, 0.5, radius=0.25)) > 0.95


@pytest.mark.parametrize("level", [90, pytest.param(0, marks=pytest.mark.full)])
def test_a_photo_of_one_color(level: int, tmp_path: Path) -> None:
    found = find(tmp_path, np.full((64, 64, 3), level, np.uint8))
    assert "no subject was found" in (found.doubt or "") and found.coverage == 0


def test_halves_and_gradients_have_no_subject(tmp_path: Path) -> None:
    halves = np.zeros((100, 100, 3), np.uint8)
    halves[:, :50, 0], halves[:, 50:, 2] = 250, 250
    assert "no edge of the photo" in (find(tmp_path, halves).doubt or "")
    gradient = np.tile(np.linspace(0, 255, 128).astype(np.uint8), (128, 1))
    assert "no edge of the photo" in (find(tmp_path, gradient).doubt or "")


def test_noise_has_no_subject(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    assert find(tmp_path, noise).doubt


def test_a_subject_smaller_than_a_thirtieth(tmp_path: Path) -> None:
    found = find(tmp_path, scene((0.5, 0.5), radius=0.06))
    assert found.doubt == "covers 1.1% of the photo, which is hardly a subject"


def test_modes_and_shapes(tmp_path: Path) -> None:
    values, truth = scene((0.5, 0.5)), disk(0.5, 0.5)
    gray = values[..., 0]
    assert overlap(find(tmp_path, gray).mask, truth) > 0.95
    deep = Image.fromarray(gray.astype(np.uint16) * 257)
    assert overlap(find(tmp_path, deep).mask, truth) > 0.95
    wide = np.tile(scene(side=64), (1, 60, 1))
    wide[:, 1900:1964] = scene((0.5, 0.5), side=64, radius=0.45)
    found = find(tmp_path, wide)
    assert found.mask.size == (3840, 64) and "covers 1.1%" in (found.doubt or "")
    turned = Image.fromarray(scene((0.3, 0.5))[:96])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = MaskFinder().find(tmp_path / "turned.jpg", "concept.images")
    assert upright.mask.size == (128, 96) and overlap(upright.mask, disk(0.3, 0.5)[:96]) > 0.95


def test_too_small_and_damaged(tmp_path: Path) -> None:
    one = tmp_path / "one.png"
    Image.new("RGB", (1, 1)).save(one)
    finder = MaskFinder()
    refused(str(one), "1 x 1", "too small", call=lambda: finder.find(one, "concept.images"))
    one.write_text("no picture")
    refused(str(one), "can't be read", call=lambda: finder.find(one, "concept.images"))


def test_what_a_base_sees_is_joined_with_what_stands_out() -> None:
    """The mean of both, what is seen clipped between its quantiles of 2% and 98%."""
    rgb = scene((0.4, 0.5), side=64)
    places = np.random.default_rng(1).normal(5, 3, (64, 64)).astype(np.float32)
    likely, threshold = finder._by_both(places, rgb)
    ordered = np.sort(places.ravel()).astype(np.float64)

    def quantile(share: float) -> float:
        whole, part = divmod(share * (ordered.size - 1), 1)
        low, high = ordered[int(whole)], ordered[int(whole) + 1]
        return float(low + part * (high - low))

    low, high = quantile(0.02), quantile(0.98)
    by_hand = (standing_out(rgb) + np.clip((places - low) / (high - low), 0, 1)) / 2
    assert np.abs(likely - by_hand).max() < 1e-5
    levels = (np.arange(256) + 0.5) / 256  # Otsu: the most variance between both sides
    spread = [
        (likely < level).mean()
        * (likely >= level).mean()
        * (likely[likely >= level].mean() - likely[likely < level].mean()) ** 2
        for level in levels
        if (likely < level).any() and (likely >= level).any()
    ]
    below = np.flatnonzero([(likely < level).any() for level in levels])[0]
    assert threshold == pytest.approx(levels[below + int(np.argmax(spread))], abs=2 / 256)


def test_what_a_base_sees_finds_a_subject_that_hardly_stands_out(tmp_path: Path) -> None:
    """Before a city, whose windows stand out more; what is seen is coarse, as a latent is."""
    drawn = draw(CONCEPTS["pip"].scenes()[1])
    file, truth = tmp_path / "photo.png", np.asarray(drawn.mask) > 127
    drawn.image.save(file)
    coarse = truth.reshape(16, 4, 16, 4).mean((1, 3)) * 3 + 1
    found = MaskFinder().find(file, "x", Seen("some/base", coarse))
    assert (found.by, found.doubt) == ("GrabCut and some/base", None)
    alone = MaskFinder().find(file, "x")
    assert overlap(found.mask, truth) > 0.7 > 0.4 > overlap(alone.mask, truth)
    again = MaskFinder().find(file, "x", Seen("some/base", coarse))
    assert again.mask.tobytes() == found.mask.tobytes()


def test_what_is_the_same_everywhere_says_nothing(tmp_path: Path) -> None:
    Image.fromarray(scene((0.5, 0.5))).save(tmp_path / "a.png")
    found = MaskFinder().find(tmp_path / "a.png", "x", Seen("b", np.ones((8, 8))))
    assert found.doubt is None and overlap(found.mask, disk(0.5, 0.5)) > 0.95


def test_a_transparent_background_is_the_mask_whatever_is_seen(tmp_path: Path) -> None:
    picture = Image.fromarray(scene((0.2, 0.2)))
    picture.putalpha(Image.fromarray((disk(0.5, 0.5) * 255).astype(np.uint8)))
    picture.save(tmp_path / "a.png")
    assert not finder.needs_looking(tmp_path / "a.png", "x")
    found = MaskFinder().find(tmp_path / "a.png", "x", Seen("b", np.ones((8, 8))))
    assert found.by == "alpha channel"


def test_coverage_is_the_mean() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert coverage_of(Image.fromarray(levels)) == pytest.approx(levels.mean() / 255)
