"""Ranks by noise level: the formula, its fit to SDXL, and other noise schedules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from tlora_cli import RankSchedule
from tlora_cli.families import FAMILIES
from tlora_cli.formulas.noise_axis import NoiseAxis

T = 1000
SDXL, FLUX = FAMILIES["sdxl"], FAMILIES["flux"]


def sdxl_log_snr(*, zero: bool = False, last: float = 0.012) -> np.ndarray:
    """Return log(a / (1 - a)) of scaled_linear betas in float64, by NumPy alone.

    Args:
        zero: with the terminal SNR of zero (Lin et al. 2023, algorithm 1).
        last: the last beta.
    """
    kept = np.cumprod(1 - np.linspace(0.00085**0.5, last**0.5, T) ** 2)
    if zero:
        root = np.sqrt(kept)
        kept = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    with np.errstate(divide="ignore"):
        return np.log(kept / (1 - kept))


def by_level(log_snr: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """T (1 - sigmoid(logsnr / s + b))."""
    with np.errstate(over="ignore"):
        return T * (1 - 1 / (1 + np.exp(-(log_snr / scale + shift))))


def axis(**changes: Any) -> NoiseAxis:
    """Return the axis of an SDXL base whose scheduler differs from the published one so."""
    return SDXL.noise_axis({**SDXL.standard_scheduler, **changes})


# --- SDXL -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, sdxl_log_snr()),
        ({"rescale_betas_zero_snr": True}, sdxl_log_snr(zero=True)),
        ({"beta_end": 0.02}, sdxl_log_snr(last=0.02)),
    ],
    ids=["published", "zero terminal SNR", "more noise"],
)
def test_the_rank_is_the_formula_at_the_noise_level(
    changes: dict[str, Any], expected: np.ndarray
) -> None:
    levels = by_level(expected, *SDXL.noise_line)
    t = torch.arange(T, dtype=torch.float64)
    found = axis(**changes).timesteps(t, T)
    # diffusers has alpha_bar in fp32, whose rounding is most of it where alpha_bar is near 1.
    assert np.abs(found.numpy() - levels).max() < 0.01
    sure = np.abs(levels * 32 / T - np.round(levels * 32 / T)) > 0.001
    ranks = RankSchedule(64, 32, axis=axis(**changes)).active_rank(t).numpy()
    assert (ranks == np.floor(32 * (T - levels) / T) + 32)[sure].all() and sure.mean() > 0.99


def test_sdxl_s_line_is_the_least_squares_one() -> None:
    """No line nearby is nearer to t, and the differences are those that docs/methods.md states."""
    log_snr, t = sdxl_log_snr(), np.arange(T)

    def error(scale: float, shift: float) -> float:
        return float(((by_level(log_snr, scale, shift) - t) ** 2).mean() ** 0.5)

    scale, shift = SDXL.noise_line
    here = error(scale, shift)
    for step in (0.01, 0.1, 0.5):
        for turn in range(16):
            angle = math.pi * turn / 8
            assert error(scale + step * math.cos(angle), shift + step * math.sin(angle)) > here
    away = by_level(log_snr, scale, shift) - t
    assert np.abs(away).max() == pytest.approx(53.8, abs=0.05) and np.abs(away).argmax() == 999
    assert np.abs(away).mean() == pytest.approx(11.4, abs=0.05)
    every = torch.arange(T)
    plain = RankSchedule(64, 32).active_rank(every)
    ranks = RankSchedule(64, 32, axis=axis()).active_rank(every)
    off = (ranks - plain).abs()
    assert (int(off.max()), float(off.double().mean())) == (2, pytest.approx(0.36, abs=0.005))
    assert float((off > 0).double().mean()) == pytest.approx(0.35, abs=0.005)
    assert (int(ranks[0]), int(ranks[-1])) == (63, 33)


def test_the_same_noise_has_the_same_rank_on_another_noise_schedule() -> None:
    """Where a base of zero terminal SNR has the noise that the plain one has at some t."""
    plain, zero = sdxl_log_snr(), sdxl_log_snr(zero=True)
    shared = np.flatnonzero((zero >= plain[-1]) & (zero <= plain[0]))
    assert len(shared) == 880, "the rest is noisier than the plain one ever is"
    twins = np.interp(-zero[shared], -plain, np.arange(T))  # t of the plain one
    assert np.abs(twins - shared).max() > 20, "the timesteps are others"
    here = axis(rescale_betas_zero_snr=True).timesteps(torch.tensor(shared).double(), T)
    there = axis().timesteps(torch.tensor(twins), T)
    assert float((here - there).abs().max()) < 0.05
    own = RankSchedule(64, 32, axis=axis(rescale_betas_zero_snr=True))
    ranks = own.active_rank(torch.tensor(shared))
    differ = ranks != RankSchedule(64, 32, axis=axis()).active_rank(torch.tensor(twins))
    assert int(differ.sum()) <= 3, "rounding alone"
    by_timestep = RankSchedule(64, 32)
    assert (ranks != by_timestep.active_rank(torch.tensor(shared))).sum() > 300


def test_noise_alone_is_exactly_t() -> None:
    zero = axis(rescale_betas_zero_snr=True)
    assert zero.signal[-1] == 0
    assert zero.timesteps(torch.tensor([999.0, 1000.0]).double(), T).tolist() == [1000, 1000]
    points = [(0, 8), (1000, 3)]
    step = RankSchedule(8, 1, kind="step", points=points, axis=zero)
    assert step.active_rank(torch.tensor([998, 999])).tolist() == [8, 3]


def test_between_whole_timesteps_it_goes_straight() -> None:
    one = axis()
    low, middle, high = one.timesteps(torch.tensor([500.0, 500.25, 501.0]).double(), T).tolist()
    assert middle == pytest.approx(low + 0.25 * (high - low), abs=1e-9)
    edges = one.timesteps(torch.tensor([-3.0, 0.0, 999.0, 1005.0]).double(), T)
    assert edges[0] == edges[1] and edges[2] == edges[3]
    assert one.timesteps(torch.zeros(2, 3).double(), T).shape == (2, 3)


# --- flow matching --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "cosine", "step", "reversed", "random"])
def test_on_flux_it_is_the_timestep_bit_for_bit(kind: str) -> None:
    by_noise = FLUX.noise_axis({"shift": 3.0, "use_dynamic_shifting": True})
    t = torch.linspace(0, T, 80001, dtype=torch.float64)
    assert torch.equal(by_noise.timesteps(t, T), t)
    points = [(0, 32), (333, 7), (900, 1)] if kind == "step" else None
    plain = RankSchedule(32, 1, kind=kind, points=points)
    other = RankSchedule(32, 1, kind=kind, points=points, axis=by_noise)
    assert torch.equal(plain.active_rank(t), other.active_rank(t))
    assert torch.equal(plain.mask(t[::800]), other.mask(t[::800]))


def test_flow_matching_s_noise_level() -> None:
    signal = FLUX.noise_axis({}).signal
    assert (len(signal), signal[0], signal[500], signal[1000]) == (1001, 1, 0.5, 0)
    for t in (1, 250, 700, 999):
        level = math.log(signal[t] / (1 - signal[t]))
        assert level == pytest.approx(2 * math.log((T - t) / t), rel=1e-8)


# --- what makes no axis ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "shift", "signal", "message"),
    [
        (0.0, 0.0, (1, 0), "scale 0.0"),
        (math.nan, 0.0, (1, 0), "scale nan"),
        (1.0, math.inf, (1, 0), "shift inf"),
        (1.0, 0.0, (1,), "1 noise levels"),
        (1.0, 0.0, (1, 0.2, 0.3), "must not rise"),
        (1.0, 0.0, (1, -0.1), "lie in 0..1"),
        (1.0, 0.0, (math.nan, 0), "lie in 0..1"),
    ],
)
def test_numbers_that_make_no_axis(
    scale: float, shift: float, signal: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        NoiseAxis(scale, shift, signal)
