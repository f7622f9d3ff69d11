"""The six starts of the ortho family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layers import changed_layer, ortho
from torch import nn

from tlora_cli.methods import starts
from tlora_cli.methods.starts import (
    THIN,
    Triplets,
    draw_starts,
    first_index,
    haar_frames,
    random_singular_values,
)
from tlora_cli.methods.tlora import STARTS


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_start(
    layer: nn.Linear, rank: int, start: str, generator: torch.Generator, std: float
) -> Triplets:
    [triplets] = draw_starts([layer], rank, start, generator, std)
    return triplets


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
    down, up = ortho((a, s, b)).factors()
    assert down.shape == (16, layer.in_features)
    assert up.shape == (layer.out_features, 16)
    assert (up @ down == 0).all()


@pytest.mark.parametrize(
    ("place", "chosen"),
    [("principal", slice(0, 6)), ("middle", slice(17, 23)), ("last", slice(34, 40))],
)
def test_weight_starts_are_triplets_of_the_weights(place: str, chosen: slice) -> None:
    torch.manual_seed(0)
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
    """Mean, spread, correlation and quantiles of 2000 draws against 2000 full decompositions."""
    generator, draws, rank = chance(1), 2000, 4
    first = first_index(30, rank, place)
    ours = random_singular_values(draws, *shape, rank, place, 0.1, generator).double()
    full = torch.linalg.svdvals(
        0.1 * torch.randn(draws, *shape, generator=generator, dtype=torch.float64)
    )[:, first : first + rank]
    assert (ours.diff(dim=1) <= 0).all()
    error = (ours.var(0) / draws + full.var(0) / draws).sqrt()
    assert ((ours.mean(0) - full.mean(0)).abs() < 5 * error).all()
    ratio = ours.std(0) / full.std(0)
    assert ((ratio - 1).abs() < 5 * (1 / draws) ** 0.5).all()
    assert (torch.corrcoef(ours.T) - torch.corrcoef(full.T)).abs().max() < 5 * (2 / draws) ** 0.5
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        below = (ours < full.quantile(quantile, dim=0)).double().mean(0)
        assert ((below - quantile).abs() < 5 * (quantile * (1 - quantile) * 2 / draws) ** 0.5).all()


@pytest.mark.parametrize("place", ["principal", "middle", "last"])
def test_singular_values_are_those_of_the_bidiagonal_matrix(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To fp32, of every matrix of a batch, down to tiny ones."""
    kept: list[torch.Tensor] = []
    own = starts._roots_of_eigenvalues

    def watched(diagonal: torch.Tensor, beside: torch.Tensor, *rest: Any) -> torch.Tensor:
        kept.extend([diagonal, beside])
        return own(diagonal, beside, *rest)

    monkeypatch.setattr(starts, "_roots_of_eigenvalues", watched)
    count, n, rank = 5, 300, 40
    got = random_singular_values(count, n, n + 20, rank, place, 1.0, chance(3)).double()
    first = first_index(n, rank, place)
    for number in range(count):
        beside = kept[1][:, number].sqrt()
        whole = kept[0][:, number].diag() + beside.diag(1) + beside.diag(-1)
        values = torch.linalg.eigvalsh(whole).sqrt().flip(0)[first : first + rank]
        torch.testing.assert_close(got[number], values, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("size", [6, THIN * 2, 40])
def test_haar_frames_prefer_no_direction(size: int) -> None:
    """E[q q^T] = (r / n) I: without the sign fix the first entries would be one-sided."""
    draws, rank = 4000, 2
    frames = haar_frames(draws, size, rank, chance(2))
    assert frames.mean(0).abs().max() < 5 * (1 / size / draws) ** 0.5
    second = (frames @ frames.transpose(1, 2)).mean(0)
    spread = (3 * rank / size**2 / draws) ** 0.5
    assert (second - rank / size * torch.eye(size)).abs().max() < 5 * spread
    fourth = (frames**4).mean(0) * size * (size + 2)  # of a uniform unit vector: 3 / (n (n + 2))
    assert (fourth - 3).abs().max() < 0.7


@pytest.mark.parametrize("rank", [8, 32, 64])
def test_frames_are_orthonormal_to_a_millionth(rank: int) -> None:
    """Thin or not: both ways to the QR."""
    frames = haar_frames(3, 64, rank, chance()).double()
    assert (frames.mT @ frames - torch.eye(rank)).abs().max() < 1e-6
    thin = haar_frames(2, 2048, rank, chance()).double()
    assert (thin.mT @ thin - torch.eye(rank)).abs().max() < 1e-6


def test_both_ways_to_the_qr_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    thin = haar_frames(3, 200, 8, chance())
    monkeypatch.setattr(starts, "THIN", 1000)
    torch.testing.assert_close(haar_frames(3, 200, 8, chance()), thin, rtol=0, atol=1e-6)


def test_layers_of_several_shapes_each_get_a_start_of_their_own() -> None:
    shapes = [(40, 40), (24, 40), (40, 40), (64, 40), (24, 40)]
    layers = [nn.Linear(*shape) for shape in shapes]
    drawn = draw_starts(layers, 4, "random_last", chance(), 0.25)
    for layer, (a, s, b) in zip(layers, drawn, strict=True):
        assert (a.shape, s.shape, b.shape) == (
            (4, layer.in_features),
            (4,),
            (layer.out_features, 4),
        )
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert one[1].tolist() != other[1].tolist()
            assert one[0].shape != other[0].shape or not torch.equal(one[0], other[0])
        assert one[0].untyped_storage().nbytes() == 4 * one[0].numel(), "holds others' memory"
    again = draw_starts(layers, 4, "random_last", chance(), 0.25)
    for one, other in zip(drawn, again, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_std_scales_the_singular_values() -> None:
    layer = nn.Linear(32, 32)
    _, small, _ = draw_start(layer, 4, "random_last", chance(), std=0.25)
    _, large, _ = draw_start(layer, 4, "random_last", chance(), std=0.5)
    assert torch.allclose(large, 2 * small)


def test_lora_start() -> None:
    layer = nn.Linear(400, 300)
    adapter = changed_layer("lora", layer, chance(), rank=20)
    assert (adapter.B == 0).all()
    assert abs(float(adapter.A.detach().std()) - 1 / 20) < 0.05 / 20 * 3


def test_the_delta_form_survives_bf16() -> None:
    """One small step at width 1280, r 64: bf16 factors of the delta form stay within one percent,
    where the difference of two bf16 products loses the update.
    """
    layer, generator = nn.Linear(1280, 1280), chance()
    start = draw_start(layer, 64, "random_last", generator, std=1 / 64)
    now = tuple(x + 1e-4 * torch.randn(x.shape, generator=generator).sign() for x in start)
    adapter = ortho(start, now)
    (a0, s0, b0), (a, s, b) = (tuple(x.double() for x in triplet) for triplet in (start, now))
    exact = b * s @ a - b0 * s0 @ a0
    down, up = (x.detach().bfloat16().double() for x in adapter.factors())
    error = (up @ down - exact).norm() / exact.norm()
    naive = [(x.bfloat16().double()) for x in (b, s.unsqueeze(1) * a, b0, s0.unsqueeze(1) * a0)]
    naive_error = (naive[0] @ naive[1] - naive[2] @ naive[3] - exact).norm() / exact.norm()
    assert error < 0.01
    assert naive_error > 20 * error
