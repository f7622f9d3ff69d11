"""Prodigy against the package of its authors; fused AdamW against the formula."""

from __future__ import annotations

import copy
from typing import Any, get_args

import pytest
import torch
from prodigyopt import Prodigy as Theirs
from torch import Tensor

from tlora_cli.recipe.train_sections import OptimizerConfig
from tlora_cli.training.optimizers import STATE_COPIES, make_optimizer
from tlora_cli.training.prodigy import Prodigy

SHAPES = [(4, 6), (5,), (6, 3)]
SETTINGS = {"weight_decay": 0.01, "betas": (0.9, 0.99), "eps": 1e-8}


def draw(seed: int) -> list[Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=chance, dtype=torch.float64) for shape in SHAPES]


def parameters(dtype: torch.dtype = torch.float64) -> list[torch.nn.Parameter]:
    made = [torch.nn.Parameter(tensor.to(dtype)) for tensor in draw(0)]
    with torch.no_grad():
        made[2].zero_()  # as B of a LoRA
    return made


def theirs(tensors: list[torch.nn.Parameter]) -> Any:
    return Theirs(
        tensors, **SETTINGS, decouple=True, use_bias_correction=True, safeguard_warmup=True
    )


def advance(tensors: list[torch.nn.Parameter], optimizer: Any, steps: range) -> list[float]:
    """Descend a bowl with noise; return the estimates of the step size."""
    goals, estimates = draw(99), []
    for step in steps:
        for tensor, goal, noise in zip(tensors, goals, draw(step + 1), strict=True):
            tensor.grad = (tensor.detach() - goal + 0.1 * noise).to(tensor.dtype)
        optimizer.step()
        estimates.append(float(optimizer.param_groups[0]["d"]))
    return estimates


def close(ours: list[torch.nn.Parameter], others: list[torch.nn.Parameter]) -> None:
    for a, b in zip(ours, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_prodigy_goes_the_way_of_its_authors() -> None:
    ours, other = parameters(), parameters()
    mine, reference = Prodigy(ours, **SETTINGS), theirs(other)
    d = advance(ours, mine, range(60))
    assert d == pytest.approx(advance(other, reference, range(60)), rel=1e-5)
    assert d[-1] > 1000 * d[0], "the case must reach where the estimate matters"
    close(ours, other)


def test_a_checkpoint_of_their_package_goes_on() -> None:
    ours, other = parameters(), parameters()
    reference = theirs(other)
    advance(other, reference, range(30))
    with torch.no_grad():
        for a, b in zip(ours, other, strict=True):
            a.copy_(b)
    mine = Prodigy(ours, **SETTINGS)
    mine.load_state_dict(copy.deepcopy(reference.state_dict()))
    d = advance(ours, mine, range(30, 60))
    assert d == pytest.approx(advance(other, reference, range(30, 60)), rel=1e-5)
    close(ours, other)


def test_prodigy_in_fp32_goes_the_same_way() -> None:
    """As near as fp32 can: the first steps, of 1e-6, are lost in the rounding of p0 - p."""
    exact, ours = parameters(), parameters(torch.float32)
    d = advance(exact, Prodigy(exact, **SETTINGS), range(60))
    assert advance(ours, Prodigy(ours, **SETTINGS), range(60)) == pytest.approx(d, rel=0.05)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=0.05)


def test_prodigy_resumes_to_the_same_bits() -> None:
    whole, halves = parameters(torch.float32), parameters(torch.float32)
    first = Prodigy(whole, **SETTINGS)
    advance(whole, first, range(20))
    advance(halves, before := Prodigy(halves, **SETTINGS), range(10))
    after = Prodigy(halves, **SETTINGS)
    after.load_state_dict(before.state_dict())
    advance(halves, after, range(10, 20))
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))


def test_nothing_moves_before_the_first_gradient() -> None:
    tensors = parameters()
    before = [tensor.detach().clone() for tensor in tensors]
    optimizer = Prodigy(tensors, **SETTINGS)
    for tensor in tensors:
        tensor.grad = torch.zeros_like(tensor)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    assert float(optimizer.param_groups[0]["d"]) == pytest.approx(1e-6)
    advance(tensors, optimizer, range(5))
    assert all(tensor.isfinite().all() for tensor in tensors)


def test_groups_of_several_rates_are_refused() -> None:
    first, *others = parameters()
    groups = [{"params": [first], "lr": 1.0}, {"params": others, "lr": 0.5}]
    with pytest.raises(ValueError, match="one step size"):
        advance([first, *others], Prodigy(groups), range(1))


def test_adamw_is_fused_and_follows_the_formula() -> None:
    """Loshchilov and Hutter 2019, algorithm 2, in float64."""
    tensors = parameters(torch.float32)
    config = OptimizerConfig(name="adamw", lr=0.01, weight_decay=0.1)
    optimizer = make_optimizer(config, [{"params": tensors, "rate": 1.0}])
    assert optimizer.param_groups[0]["fused"]
    exact = [tensor.detach().double() for tensor in tensors]
    means, squares = ([torch.zeros_like(tensor) for tensor in exact] for _ in range(2))
    beta1, beta2 = config.betas
    for step in range(1, 8):
        for i, gradient in enumerate(draw(step)):
            tensors[i].grad = gradient.float()
            g = gradient.float().double()
            means[i] = beta1 * means[i] + (1 - beta1) * g
            squares[i] = beta2 * squares[i] + (1 - beta2) * g**2
            root = (squares[i] / (1 - beta2**step)).sqrt() + config.eps
            exact[i] = exact[i] * (1 - 0.01 * 0.1) - 0.01 * means[i] / (1 - beta1**step) / root
        optimizer.step()
    for tensor, want in zip(tensors, exact, strict=True):
        torch.testing.assert_close(tensor.detach().double(), want, rtol=1e-5, atol=1e-6)


def test_the_size_of_every_optimizer_is_known() -> None:
    names = get_args(OptimizerConfig.model_fields["name"].annotation)
    assert set(names) == set(STATE_COPIES)
