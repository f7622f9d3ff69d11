"""Sharpness: what blur takes away, what distance tells, and what was measured of the bases."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torch.nn import functional

from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.foundation.bundled import bases
from tlora_cli.toyworld.factors import draw_scene
from tlora_cli.toyworld.reading import pixels_of
from tlora_cli.toyworld.renderer import draw
from tlora_cli.toyworld.sharpness import frechet_distance, laplacian, patch_distance


@pytest.fixture(scope="module")
def sets() -> tuple[Tensor, Tensor]:
    """Return two sets of 200 drawings of seen combinations."""
    rng = random.Random("sharpness")
    drawn = [draw(draw_scene(rng, held_out=False)).image for _ in range(400)]
    pixels = pixels_of(drawn)
    return pixels[:200], pixels[200:]


def blurred(pixels: Tensor) -> Tensor:
    return functional.avg_pool2d(functional.pad(pixels, (1,) * 4, mode="replicate"), 3, 1)


def test_the_laplacian_by_hand() -> None:
    flat = torch.full((1, 3, 8, 8), 0.3)
    assert laplacian(flat) == pytest.approx(0, abs=1e-10)
    dot = torch.full((1, 3, 5, 5), -1.0)
    dot[..., 2, 2] = 1
    assert laplacian(dot) == pytest.approx((16 + 4) / 9)
    assert laplacian(dot[:, [2, 1, 0]]) == laplacian(dot)


def test_drawings_have_the_laplacian_they_had(sets: tuple[Tensor, Tensor]) -> None:
    for pixels in sets:
        assert laplacian(pixels) == pytest.approx(0.069, abs=0.002)


def test_blur_shows_in_both_measures(sets: tuple[Tensor, Tensor]) -> None:
    one, two = sets
    assert laplacian(blurred(one)) < 0.2 * laplacian(one)
    assert patch_distance(blurred(one), two) > 2 * patch_distance(one, two)


@torch.no_grad()
@pytest.mark.parametrize(("base", "sharpness"), [("toy-sdxl", 0.072), ("toy-flux", 0.048)])
def test_the_vaes_of_the_bases_blur_as_measured(
    base: str, sharpness: float, sets: tuple[Tensor, Tensor]
) -> None:
    one, two = sets
    vae = load_pipeline(FAMILIES[bases()[base]], Base(base), parts=("vae",)).vae
    parts = [vae.decode(vae.encode(p).latent_dist.mean).sample for p in torch.split(one, 50)]
    back = torch.cat(parts).clamp(-1, 1)
    assert laplacian(back) == pytest.approx(sharpness, abs=0.003)
    assert 0.8 < patch_distance(back, two) / patch_distance(one, two) < 2.2


def test_patches_are_drawn_by_seed(sets: tuple[Tensor, Tensor]) -> None:
    one, two = (part[:20] for part in sets)
    assert patch_distance(one, two, 500) == patch_distance(one, two, 500)
    assert patch_distance(one, two, 500) != patch_distance(one, two, 500, seed=1)
    assert patch_distance(one, one, 2000) < 0.6 * patch_distance(one, two, 2000)


def test_frechet_distance_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6))
    two = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) + 1
    first, second = np.cov(one.T), np.cov(two.T)
    shift = one.mean(0) - two.mean(0)
    expected = shift @ shift + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(one, two) == pytest.approx(expected)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
