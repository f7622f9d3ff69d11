"""Outlines at the photo's own size, thresholds, pieces: against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from tlora_cli.photos.masks import edges
from tlora_cli.photos.masks.checks import doubt
from tlora_cli.photos.masks.edges import refined
from tlora_cli.photos.masks.grabcut import cut_out, threshold_of
from tlora_cli.photos.masks.outline import edge_share
from tlora_cli.photos.masks.superpixels import neighbors, superpixels


def test_the_mask_follows_the_edge_of_the_large_photo() -> None:
    """The small photo's edge lies between its pixels; the large one's is found to the pixel."""
    large = np.full((1024, 1024, 3), 40, np.uint8)
    large[:, 517:] = [220, 180, 60]
    small = large.reshape(128, 8, 128, 8, 3).mean((1, 3)).astype(np.uint8)
    subject = np.zeros((128, 128), bool)
    subject[:, 64:] = True  # from pixel 512 on
    mask = refined(large, small, subject)
    assert (mask[:, :517] < 128).all() and (mask[:, 517:] >= 128).all()
    assert (mask[:, :480] == 0).all() and (mask[:, 560:] == 255).all()


def test_the_filter_is_the_guided_filter_of_its_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """He, Sun and Tang 2010, eqs. 14 and 15 for colors, pixel by pixel."""
    rng = np.random.default_rng(0)
    guide = rng.random((24, 20, 3)).astype(np.float32)
    mask = (rng.random((24, 20)) > 0.5).astype(np.float32)
    radius, inner = 2, slice(6, 14)

    def window(values: np.ndarray, row: int, column: int) -> np.ndarray:
        return values[row - radius : row + radius + 1, column - radius : column + radius + 1]

    slopes = np.zeros((24, 20, 4))
    for row in range(radius, 24 - radius):
        for column in range(radius, 20 - radius):
            colors = window(guide, row, column).reshape(-1, 3).astype(np.float64)
            levels = window(mask, row, column).ravel().astype(np.float64)
            spread = np.cov(colors.T, bias=True) + edges.SMOOTH * np.eye(3)
            together = (colors * levels[:, None]).mean(0) - colors.mean(0) * levels.mean()
            slope = np.linalg.solve(spread, together)
            slopes[row, column] = [*slope, levels.mean() - slope @ colors.mean(0)]
    wanted = np.dstack([uniform_filter(slopes[..., one], 2 * radius + 1) for one in range(4)])
    found = edges._fit(guide, mask, radius)
    np.testing.assert_allclose(found[inner, inner], wanted[inner, inner], rtol=1e-3, atol=1e-3)


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    large = rng.integers(0, 255, (240, 200, 3)).astype(np.uint8)
    small = large[::4, ::4]
    subject = np.zeros((60, 50), bool)
    subject[15:45, 10:40] = True
    whole = refined(large, small, subject)
    monkeypatch.setattr(edges, "STRIP", 200 * 7)
    # Places are rounded to 1/32 of a pixel by OpenCV, from the strip's own start.
    apart = np.abs(refined(large, small, subject).astype(int) - whole)
    assert np.quantile(apart, 0.99) <= 8 and apart.mean() < 0.5


def test_threshold_is_otsus() -> None:
    """The level that makes the variance between both sides largest, by trying all."""
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(0.2, 0.05, 900), rng.normal(0.7, 0.1, 300)]).clip(0, 1)
    levels = np.arange(1, 256) / 256

    def between(level: float) -> float:
        low, high = values[values < level], values[values >= level]
        if not len(low) or not len(high):
            return 0
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    best = levels[np.argmax([between(level) for level in levels])]
    assert threshold_of(values) == pytest.approx(best, abs=0.02)


def test_pieces_and_holes() -> None:
    """What is far away is another piece; a hole is filled where the guess says subject."""
    rgb = np.full((100, 100, 3), 30, np.uint8)
    guess = np.zeros((100, 100), np.float32)
    for rows, columns in ((slice(20, 70), slice(10, 60)), (slice(80, 90), slice(80, 90))):
        rgb[rows, columns] = [220, 40, 40]
        guess[rows, columns] = 1
    rgb[30:45, 30:45] = 30  # of the background's color, but in the middle of the subject
    guess[30:45, 30:45] = 0.45
    cut = cut_out(rgb, guess, 0.5)
    assert cut.subject[20:70, 10:60].all() and cut.subject.sum() == 2500
    assert len(cut.pieces) == 2 and cut.pieces[1] == 100
    guess[30:45, 30:45] = 0  # now nothing says that it is the subject's
    assert not cut_out(rgb, guess, 0.5).subject[30:45, 30:45].any()


@pytest.mark.parametrize(
    ("coverage", "pieces", "words"),
    [
        (0.0299, (), "covers 3.0% of the photo, which is hardly"),
        (0, (), "covers nothing"),
        (0.03, (), None),
        (0.90, (), None),
        (0.91, (), "covers 91% of the photo"),
        (0.3, (300, 99), None),
        (0.3, (300, 100), "large pieces"),
        (0.3, (300, 90, 90, 90), None),
        (0.3, (300, 90, 90, 90, 90), "small pieces"),
        (0.3, (10,), None),
    ],
)
def test_doubts(coverage: float, pieces: tuple[int, ...], words: str | None) -> None:
    said = doubt(coverage, pieces)
    assert (said is None) if words is None else words in (said or "")


def test_an_outline_without_an_edge() -> None:
    assert doubt(0.3, (9,), 0.5) is None
    assert "no edge of the photo" in (doubt(0.3, (9,), 0.49) or "")


def test_share_of_the_outline_that_is_an_edge() -> None:
    """A square of which one side of four lies on an edge of the photo; then one at its border."""
    rgb = np.full((80, 80, 3), 60, np.uint8)
    rgb[:, :20] = 200
    subject = np.zeros((80, 80), bool)
    subject[20:60, 20:60] = True
    assert edge_share(rgb, subject) == pytest.approx(1 / 4, abs=0.06)
    subject = np.zeros((80, 80), bool)
    subject[:, :20] = True  # the photo's own border doesn't count
    assert edge_share(rgb, subject) == 1
    assert edge_share(rgb, ~subject) == 1
    assert edge_share(rgb, np.ones((80, 80), bool)) == 1


def test_superpixels_part_what_differs_and_name_their_neighbors() -> None:
    lab = np.zeros((40, 60, 3), np.float32)
    lab[:, 33:] = 80
    labels = superpixels(lab, 24)
    assert set(np.unique(labels)) == set(range(labels.max() + 1))
    assert not set(labels[:, :33].ravel()) & set(labels[:, 33:].ravel())
    pairs = {tuple(pair) for pair in neighbors(labels).tolist()}
    wanted = set()
    for row in range(40):
        for column in range(60):
            for down, right in ((0, 1), (1, 0)):
                if row + down < 40 and column + right < 60:
                    one, other = labels[row, column], labels[row + down, column + right]
                    if one != other:
                        wanted.add((min(one, other), max(one, other)))
    assert pairs == wanted


def test_a_sun_just_above_an_ear_is_no_part_of_the_subject_and_hanging_boots_are() -> None:
    """A gap of a 32nd of the side parts, one of a 64th does not."""
    side, unit = 512, 8
    rgb = np.full((side, side, 3), (90, 140, 200), np.uint8)
    guess = np.zeros((side, side))

    def paint(top: int, bottom: int, left: int, right: int) -> tuple[slice, slice]:
        part = slice(top * unit, bottom * unit), slice(left * unit, right * unit)
        rgb[part], guess[part] = (200, 60, 60), 1.0
        return part

    body, boots, sun = paint(20, 44, 20, 44), paint(45, 50, 24, 30), paint(12, 18, 36, 42)
    found = cut_out(rgb, guess, 0.5)
    assert found.subject[body].all() and found.subject[boots].all()
    assert not found.subject[sun].any()
    assert len(found.pieces) == 2
