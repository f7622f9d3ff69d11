"""Updates folded into the weights for sampling on a CPU: the pair's values, and nothing left."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from small_denoisers import (
    FAMILIES,
    RANK,
    call,
    close,
    in_double,
    make_unet,
    merged,
    stir,
    unet_inputs,
)
from torch import Tensor, nn

from tlora_cli import Adapter, attach
from tlora_cli.injection import folded_weights as folding

METHODS = ("lora", "vanilla_tlora", "ortho_lora", "tlora", "adalora", "pissa")
TIMESTEPS = (999, 700, 350, 1)


def without_folding(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("tlora_cli.injection.adapter.can_fold", lambda *parts, **_: False)
    return adapter.frozen()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def exact_answer(
    model: nn.Module, adapter: Adapter, inputs: dict[str, Any], t: int, family: str
) -> Tensor:
    """Return the model's answer in float64."""
    assert adapter.schedule is not None
    whole = merged(model, adapter, adapter.schedule.active_rank(t))
    return call(whole, in_double(inputs), t, family)


def exact_gradients(
    model: nn.Module, adapter: Adapter, inputs: dict[str, Any], t: int, family: str
) -> list[Tensor]:
    """Return loss and gradients in float64; model and adapter are float64 afterwards."""
    model.double()
    for layer in adapter.layers.values():
        layer.double()
    loss = call(model, in_double(inputs), t, family).square().mean()
    loss.backward()
    return [loss.detach(), *(p.grad for p in adapter.parameters() if p.grad is not None)]


def as_exact(one: Tensor, two: Tensor, truth: Tensor, tolerance: float) -> bool:
    """Whether one is about as near to the truth as two, or nearer than the tolerance.

    On some processors fp32 itself is farther off than the tolerance: the methods that start at the
    weights make a small random model that amplifies rounding.
    """
    scale = truth.abs().max().clamp(min=1e-9)
    off, other = (float((x.double() - truth).abs().max() / scale) for x in (one, two))
    return off <= max(tolerance, 4 * other)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_folded_is_the_pair(family: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, make_inputs, _ = FAMILIES[family]
    model, inputs = make(), make_inputs(2)
    adapter = stir(attach(model, method, RANK, min_rank=1 if "tlora" in method else None))
    before = weights(model)
    with torch.no_grad():
        bare = call(make(), inputs, 500, family)
        with adapter.frozen():
            assert adapter._folding is not None
            folded = [call(model, inputs, t, family) for t in (*TIMESTEPS, TIMESTEPS[0])]
        with without_folding(adapter, monkeypatch):
            assert adapter._folding is None
            pairs = [call(model, inputs, t, family) for t in (*TIMESTEPS, TIMESTEPS[0])]
        after = [call(model, inputs, t, family) for t in TIMESTEPS]
        exact = [exact_answer(model, adapter, inputs, t, family) for t in TIMESTEPS]
    for one, two, truth in zip(folded, pairs, [*exact, exact[0]], strict=True):
        assert as_exact(one, two, truth, 5e-5)
    assert torch.equal(folded[0], folded[-1]), "going back to a timestep"
    assert not close(pairs[2], bare, 1e-2), "the update matters"
    for one, two in zip(after, pairs, strict=False):
        assert close(one, two, 5e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())


def test_the_strength_is_folded_in(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = make_unet(), unet_inputs(1)
    adapter = stir(attach(model, "tlora", RANK))
    with torch.no_grad(), adapter.frozen():
        whole = call(model, inputs, 300, "sdxl")
        adapter.scale = 0.5
        half = call(model, inputs, 300, "sdxl")
    with torch.no_grad(), without_folding(adapter, monkeypatch):
        assert close(half, call(model, inputs, 300, "sdxl"), 1e-5)
    assert not close(half, whole, 1e-2)


def test_samples_of_different_timesteps_keep_their_own_masks() -> None:
    model, inputs = make_unet(), unet_inputs(2)
    adapter = stir(attach(model, "tlora", RANK, min_rank=1))
    t = torch.tensor([900.0, 100.0])
    with torch.no_grad():
        plain = call(model, inputs, t, "sdxl")
        with adapter.frozen():
            call(model, inputs, 500, "sdxl")
            assert torch.equal(call(model, inputs, t, "sdxl"), plain)
            again = call(model, inputs, 500, "sdxl")
            assert close(again, call(model, inputs, torch.tensor([500.0, 500.0]), "sdxl"), 1e-6)


def test_nothing_is_left_after_an_error() -> None:
    model, inputs = make_unet(), unet_inputs(1)
    adapter = stir(attach(model, "tlora", RANK))
    with torch.no_grad():
        plain = call(model, inputs, 500, "sdxl")
        with pytest.raises(KeyboardInterrupt), adapter.frozen():
            call(model, inputs, 900, "sdxl")
            raise KeyboardInterrupt
        assert torch.equal(call(model, inputs, 500, "sdxl"), plain)
    assert not any("forward" in vars(module) for module in model.modules())
    copy.deepcopy(model)


def test_gradients_and_nested_calls_go_past_it() -> None:
    model, inputs = make_unet(), unet_inputs(1)
    adapter = stir(attach(model, "tlora", RANK))
    with adapter.frozen():
        with torch.no_grad():
            call(model, inputs, 500, "sdxl")
            with adapter.frozen():
                call(model, inputs, 400, "sdxl")
            assert adapter._folding is not None
        call(model, inputs, 500, "sdxl").sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adapter.parameters())


def test_half_precision_and_replaced_layers_are_not_folded() -> None:
    """A small update would be rounded away in bf16; another library's forward is its own."""
    model = make_unet()
    adapter = stir(attach(model, "lora", RANK))
    layers = dict(model.named_modules())
    assert folding.can_fold(layers, adapter._updates, training=False, device="cpu")
    name = next(iter(adapter.layers))
    own = layers[name].forward
    layers[name].forward = lambda x: own(x)
    assert not folding.can_fold(layers, adapter._updates, training=False, device="cpu")
    del layers[name].forward
    model.to(torch.bfloat16)
    assert not folding.can_fold(layers, adapter._updates, training=False, device="cpu")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("t", [900, 100])
def test_gradients_are_those_of_the_pair(family: str, method: str, t: int) -> None:
    make, make_inputs, _ = FAMILIES[family]
    model, inputs = make(), make_inputs(2)
    adapter = stir(attach(model, method, RANK, min_rank=1 if "tlora" in method else None))
    found = []
    for folds in (adapter.folding(training=True), None):
        with adapter.folded(folds):
            loss = call(model, inputs, t, family).square().mean()
            loss.backward()
        found.append([loss.detach(), *(p.grad for p in adapter.parameters())])
        for parameter in adapter.parameters():
            parameter.grad = None
    assert all(one is not None for one in found[0])
    truth = exact_gradients(model, adapter, inputs, t, family)
    assert all(as_exact(*three, 1e-4) for three in zip(*found, truth, strict=True))
    if "tlora" in method and t == 900:
        assert any(bool((p == 0).any()) for p in found[0][1:]), "masked ranks have no gradient"


def test_two_calls_before_a_backward_pass_keep_their_own_weights() -> None:
    model, inputs = make_unet(), unet_inputs(1)
    adapter = stir(attach(model, "tlora", RANK, min_rank=1))
    found = []
    for folds in (adapter.folding(training=True), None):
        with adapter.folded(folds):
            both = [call(model, inputs, t, "sdxl") for t in (900, 100)]
            (both[0] * both[1]).sum().backward()
        found.append([p.grad for p in adapter.parameters()])
        for parameter in adapter.parameters():
            parameter.grad = None
    assert all(one is not None and close(one, two) for one, two in zip(*found, strict=True))


def test_checkpointed_blocks_are_not_folded_in_training() -> None:
    model, inputs = make_unet().train(), unet_inputs(1)
    adapter = stir(attach(model, "tlora", RANK))
    adapter.enable_gradient_checkpointing()
    folds = adapter.folding(training=True)
    assert folds is not None
    with adapter.folded(folds):
        call(model, inputs, 500, "sdxl").sum().backward()
    assert folds._folded == []


def test_large_layers_are_not_folded_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = attach(make_unet(), "lora", RANK)
    assert adapter.folding(training=True) is not None
    monkeypatch.setattr(folding, "SMALL", 100)
    assert adapter.folding(training=True) is None
    assert adapter.folding(training=False) is not None
