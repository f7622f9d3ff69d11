"""The six starts of the ortho family."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tlora_cli.adapters import STARTS, LowRank, Ortho
from tlora_cli.adapters.starts import (
    draw_start,
    first_index,
    haar_columns,
    random_singular_values,
)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("shape", [(40, 40), (64, 40), (40, 64)])
def test_factors_are_orthonormal_and_the_update_starts_at_zero(
    start: str, shape: tuple[int, int]
) -> None:
    layer = nn.Linear(*shape)
    a, s, b = draw_start(layer, 8, start, chance(), std=1 / 8)
    for frame in (a.T.double(), b.double()):
        assert (frame.T @ frame - torch.eye(8)).abs().max() < 2e-6
    assert (s.diff() <= 0).all()
    assert (s > 0).all()
    down, up = Ortho((a, s, b)).factors()
    assert down.shape == (16, layer.in_features)
    assert up.shape == (layer.out_features, 16)
    assert (up @ down == 0).all()


@pytest.mark.parametrize(
    ("place", "chosen"),
    [("principal", slice(0, 6)), ("middle", slice(17, 23)), ("last", slice(34, 40))],
)
def test_weight_starts_are_triplets_of_the_weights(place: str, chosen: slice) -> None:
    layer = nn.Linear(48, 40)
    a, s, b = draw_start(layer, 6, f"weights_{place}", chance(), std=1.0)
    u, values, vh = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
    assert torch.allclose(s.double(), values[chosen], rtol=1e-5)
    expected = u[:, chosen] * values[chosen] @ vh[chosen]
    assert torch.allclose((b * s @ a).double(), expected, atol=1e-5)


@pytest.mark.parametrize("place", ["principal", "middle", "last"])
@pytest.mark.parametrize("shape", [(30, 30), (50, 30), (30, 50)])
def test_random_singular_values_have_the_law_of_a_normal_matrix(
    place: str, shape: tuple[int, int]
) -> None:
    """Mean and spread over 400 draws against 400 full decompositions, within 5 standard errors."""
    generator, draws, rank = chance(1), 400, 4
    first = first_index(30, rank, place)
    ours = torch.stack(
        [random_singular_values(*shape, rank, place, 0.1, generator) for _ in range(draws)]
    ).double()
    full = torch.linalg.svdvals(
        0.1 * torch.randn(draws, *shape, generator=generator, dtype=torch.float64)
    )[:, first : first + rank]
    error = (ours.var(0) / draws + full.var(0) / draws).sqrt()
    assert ((ours.mean(0) - full.mean(0)).abs() < 5 * error).all()
    ratio = ours.std(0) / full.std(0)
    assert ((ratio - 1).abs() < 5 * (1 / draws) ** 0.5).all()


def test_haar_columns_prefer_no_direction() -> None:
    """E[q q^T] = (r / n) I: without the sign fix the first entries would be one-sided."""
    generator, draws = chance(2), 2000
    frames = torch.stack([haar_columns(6, 2, generator) for _ in range(draws)])
    assert frames.mean(0).abs().max() < 5 * (1 / 6 / draws) ** 0.5
    second = (frames @ frames.transpose(1, 2)).mean(0)
    assert (second - torch.eye(6) / 3).abs().max() < 0.02


def test_std_scales_the_singular_values() -> None:
    layer = nn.Linear(32, 32)
    _, small, _ = draw_start(layer, 4, "random_last", chance(), std=0.25)
    _, large, _ = draw_start(layer, 4, "random_last", chance(), std=0.5)
    assert torch.allclose(large, 2 * small)


def test_lora_start() -> None:
    layer = nn.Linear(400, 300)
    adapter = LowRank.start(layer, 20, chance())
    assert (adapter.B == 0).all()
    assert abs(float(adapter.A.detach().std()) - 1 / 20) < 0.05 / 20 * 3


def test_the_delta_form_survives_bf16() -> None:
    """One small step at width 1280, r 64: bf16 factors of the delta form stay within one percent,
    where the difference of two bf16 products loses the update.
    """
    layer, generator = nn.Linear(1280, 1280), chance()
    start = draw_start(layer, 64, "random_last", generator, std=1 / 64)
    now = tuple(x + 1e-4 * torch.randn(x.shape, generator=generator).sign() for x in start)
    adapter = Ortho(start, now)
    (a0, s0, b0), (a, s, b) = (tuple(x.double() for x in triplet) for triplet in (start, now))
    exact = b * s @ a - b0 * s0 @ a0
    down, up = (x.detach().bfloat16().double() for x in adapter.factors())
    error = (up @ down - exact).norm() / exact.norm()
    naive = [(x.bfloat16().double()) for x in (b, s.unsqueeze(1) * a, b0, s0.unsqueeze(1) * a0)]
    naive_error = (naive[0] @ naive[1] - naive[2] @ naive[3] - exact).norm() / exact.norm()
    assert error < 0.01
    assert naive_error > 20 * error
