"""Objectives, batches and losses against formulas written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from tlora_cli.families import LatentDistribution
from tlora_cli.formulas.objectives import (
    Epsilon,
    Flow,
    TimestepSampler,
    VPrediction,
    squared_error,
)
from tlora_cli.recipe.train_sections import LRScheduleConfig
from tlora_cli.training.batch import Example, draw_batch, generator_for, picture_order
from tlora_cli.training.optimizers import lr_factor

SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_diffusion_objectives_match_the_stock_scheduler() -> None:
    scheduler = DDPMScheduler(**SDXL)
    x, n, t = noise(3, 4, 8, 8), noise(3, 4, 8, 8, seed=1), torch.tensor([0, 400, 999])
    epsilon, v = Epsilon(scheduler.alphas_cumprod), VPrediction(scheduler.alphas_cumprod)
    assert torch.allclose(epsilon.corrupt(x, n, t), scheduler.add_noise(x, n, t), atol=1e-6)
    assert torch.equal(epsilon.target(x, n, t), n)
    assert torch.allclose(v.target(x, n, t), scheduler.get_velocity(x, n, t), atol=1e-6)


def test_flow() -> None:
    x, n, t = noise(3, 4, 8, 8), noise(3, 4, 8, 8, seed=1), torch.tensor([1, 400, 1000])
    s = t.double().view(-1, 1, 1, 1) / 1000
    expected = (1 - s) * x.double() + s * n.double()
    assert torch.allclose(Flow().corrupt(x, n, t).double(), expected, atol=1e-6)
    assert torch.equal(Flow().target(x, n, t), n - x)


def test_timesteps_cover_their_interval() -> None:
    chance = generator_for(0)
    drawn = TimestepSampler(low=800, high=1000).draw(4000, Epsilon(torch.ones(1000)), chance)
    assert drawn.min() == 800
    assert drawn.max() == 999
    assert abs(float(drawn.double().mean()) - 899.5) < 5 * 57.7 / 4000**0.5
    flow = TimestepSampler().draw(20000, Flow(), chance)
    assert flow.min() == 1
    assert flow.max() == 1000


def test_logit_normal_has_its_quartiles() -> None:
    sampler = TimestepSampler(distribution="logit_normal", mean=0.5, std=0.8)
    drawn = sampler.draw(20000, Epsilon(torch.ones(1000)), generator_for(1)).double()
    expected = [1000 / (1 + np.exp(-(0.5 + 0.8 * z))) for z in (-0.6745, 0.0, 0.6745)]
    got = [float(drawn.quantile(q)) for q in (0.25, 0.5, 0.75)]
    assert got == pytest.approx(expected, abs=8)


def test_squared_error_per_sample_and_under_a_mask() -> None:
    a, b = noise(2, 4, 6, 6), noise(2, 4, 6, 6, seed=1)
    errors = (a.double() - b.double()) ** 2
    assert torch.allclose(squared_error(a, b).double(), errors.mean((1, 2, 3)), rtol=1e-6)
    weight = torch.zeros(2, 1, 6, 6)
    weight[0, :, :3, :2] = 1
    weight[1] = 0.5
    expected = torch.stack([errors[0, :, :3, :2].mean(), errors[1].mean()])
    assert torch.allclose(squared_error(a, b, weight).double(), expected, rtol=1e-6)


def example(seed: int, weight: torch.Tensor | None = None) -> Example:
    return Example(
        LatentDistribution(noise(4, 8, 8, seed=seed), 0.1 * torch.ones(4, 8, 8)),
        {"prompt_embeds": noise(1, 7, 16, seed=seed)},
        weight,
    )


def draw(index: int, seed: int = 0, prior: list[Example] | None = None, size: int = 2):
    examples = [example(0), example(1, torch.zeros(1, 8, 8))]
    objective, device = Epsilon(torch.ones(1000)), torch.device("cpu")
    return draw_batch(
        examples,
        prior or [],
        size=size,
        seed=seed,
        index=index,
        objective=objective,
        timesteps=TimestepSampler(),
        device=device,
    )


def test_a_batch_is_a_function_of_seed_and_index() -> None:
    first, again, other, reseeded = draw(3), draw(3), draw(4), draw(3, seed=1)
    assert torch.equal(first.noise, again.noise)
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.timesteps, again.timesteps)
    assert not torch.equal(first.noise, other.noise)
    assert not torch.equal(first.noise, reseeded.noise)


def test_a_batch_holds_latent_samples_weights_and_conditioning_of_its_pictures() -> None:
    batch = draw(0)
    order = picture_order(0, 0, 2, 2)
    assert sorted(order) == [0, 1]
    for row, picture in enumerate(order):
        mean = example(picture).latent.mean
        spread = (batch.latents[row] - mean) / 0.1
        assert abs(float(spread.std()) - 1) < 0.2
        assert torch.equal(
            batch.conditioning["prompt_embeds"][row], noise(1, 7, 16, seed=picture)[0]
        )
        assert batch.weight is not None
        assert float(batch.weight[row].mean()) == (0.0 if picture == 1 else 1.0)


def test_prior_pictures_join_the_batch() -> None:
    batch = draw(0, prior=[example(5)], size=1)
    assert batch.instances == 1
    assert batch.latents.shape[0] == batch.timesteps.shape[0] == 2
    assert torch.equal(batch.conditioning["prompt_embeds"][1], noise(1, 7, 16, seed=5)[0])


def test_each_epoch_uses_every_picture_once() -> None:
    order = picture_order(7, 0, 50, 5)
    assert all(sorted(order[i : i + 5]) == [0, 1, 2, 3, 4] for i in range(0, 50, 5))
    assert picture_order(7, 13, 20, 5) == order[13:33]
    assert len({tuple(order[i : i + 5]) for i in range(0, 50, 5)}) > 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.5, (1 + np.cos(0.75 * np.pi)) / 2]),
        ("polynomial", [0.5, 1, 1, 0.25, 0.0625]),
    ],
)
def test_learning_rate(name: str, expected: list[float]) -> None:
    config = LRScheduleConfig(name=name, warmup_steps=2)
    got = [lr_factor(config, step, 10) for step in (0, 1, 2, 6, 8)]
    assert got == pytest.approx(expected)
