"""The adapter on its denoiser: identity, masks, gradients, removal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_denoisers import (
    FAMILIES,
    MIN_RANK,
    RANK,
    call,
    close,
    flux_inputs,
    in_double,
    make_transformer,
    make_unet,
    merged,
    rows,
    stir,
    unet_inputs,
)
from torch import Tensor, nn

from tlora_cli import RankSchedule, UserError, attach
from tlora_cli.methods.tlora import STARTS


def test_flux_timesteps_do_not_drift_over_a_rank_step() -> None:
    """t / 1000 * 1000 in fp32 is not t for every t; the rank must be that of t."""
    model = make_transformer()
    schedule = RankSchedule(10, 1, kind="piecewise", points=[(0, 10), (1000, 0)])
    adapter = attach(model, "tlora", 10, schedule=schedule)
    inputs = flux_inputs(1)
    for t in range(100, 1000, 100):
        call(model, inputs, t, "flux")
        assert int(adapter.call.active_rank) == 10 - t // 100


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_of_four_timesteps_equals_four_single_calls(family: str) -> None:
    make, make_inputs, _ = FAMILIES[family]
    model, inputs, t = make(), make_inputs(4), torch.tensor([10, 300, 650, 990])
    adapter = stir(attach(model, "tlora", RANK, MIN_RANK))

    def gradients(loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, list(adapter.parameters())))

    together = call(model, inputs, t, family)
    batch = gradients((together**2).mean())
    single: list[Tensor] = []
    for i in range(4):
        alone = call(model, rows(inputs, i), t[i : i + 1], family)
        assert (alone - together[i]).abs().max() < 1e-5 * together.abs().max()
        found = gradients((alone**2).mean() / 4)
        single = [a + b for a, b in zip(single, found, strict=True)] if single else found
    assert all(close(a, b) for a, b in zip(batch, single, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["vanilla_tlora", "tlora"])
def test_gradients_are_equal_with_and_without_checkpointing(family: str, method: str) -> None:
    make, make_inputs, _ = FAMILIES[family]
    model, inputs = make(), make_inputs(2)
    adapter = stir(attach(model, method, RANK, MIN_RANK))
    parameters = list(adapter.parameters())
    t = torch.tensor([950, 100])
    plain = torch.autograd.grad((call(model, inputs, t, family) ** 2).mean(), parameters)
    own, stock = adapter.enable_gradient_checkpointing, model.enable_gradient_checkpointing
    for enable in (own, stock):
        enable()
        loss = (call(model, inputs, t, family) ** 2).mean()
        again = torch.autograd.grad(loss, parameters)
        assert all(close(a, b) for a, b in zip(again, plain, strict=True))
        # The masked-out half gets no gradient at t = 950 alone: the mask held while recomputing.
        loss = (call(model, rows(inputs, 0), t[:1], family) ** 2).mean()
        first = torch.autograd.grad(loss, parameters, allow_unused=True)[0]
        assert (first[MIN_RANK:] == 0).all()
        assert (first[:MIN_RANK] != 0).any()
        model.disable_gradient_checkpointing()


def test_checkpointing_recomputes_each_call_under_its_own_mask() -> None:
    """Two calls at different timesteps, then one backward: plain checkpointing gets this wrong."""
    model, inputs = make_unet(), unet_inputs(1)
    adapter = stir(attach(model, "tlora", RANK, MIN_RANK))

    def both() -> tuple[Tensor, ...]:
        loss = (call(model, inputs, 990, "sdxl") ** 2).mean()
        loss = loss + (call(model, inputs, 5, "sdxl") ** 2).mean()
        return torch.autograd.grad(loss, list(adapter.parameters()))

    plain = both()
    adapter.enable_gradient_checkpointing()
    assert all(close(a, b) for a, b in zip(both(), plain, strict=True))


def test_accumulated_gradients_equal_the_batch() -> None:
    model, inputs, t = make_unet(), unet_inputs(2), torch.tensor([40, 910])
    adapter = stir(attach(model, "tlora", RANK, MIN_RANK))
    parameters = list(adapter.parameters())
    batch = torch.autograd.grad((call(model, inputs, t, "sdxl") ** 2).mean(), parameters)
    for i in range(2):
        ((call(model, rows(inputs, i), t[i : i + 1], "sdxl") ** 2).mean() / 2).backward()
    assert all(
        close(p.grad, g) for p, g in zip(parameters, batch, strict=True) if p.grad is not None
    )
    assert all(p.grad is not None for p in parameters)


def test_removing_undoes_freezing_and_checkpointing() -> None:
    model = make_unet()
    model.conv_in.requires_grad_(False)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    adapter = attach(model, "tlora", RANK)
    adapter.enable_gradient_checkpointing()
    assert not any(p.requires_grad for p in model.parameters())
    assert model.is_gradient_checkpointing
    adapter.remove()
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    assert not model.is_gradient_checkpointing


def test_scale() -> None:
    model, inputs = make_unet(), unet_inputs(1)
    base = call(model, inputs, 500, "sdxl")
    adapter = stir(attach(model, "lora", RANK))
    adapter.scale = 0.0
    assert torch.equal(call(model, inputs, 500, "sdxl"), base)
    adapter.scale = 0.5
    half = call(model, inputs, 500, "sdxl")
    bare = merged(model, adapter, 0)
    modules = dict(bare.named_modules())
    for name, layer in adapter.layers.items():
        down, up = (x.detach().double() for x in layer.factors())
        modules[name].weight.data += 0.5 * up @ down
    expected = call(bare, in_double(inputs), 500, "sdxl")
    assert (half.double() - expected).abs().max() < 1e-4 * expected.abs().max()


def test_frozen_factors_give_the_same_answer_and_thaw() -> None:
    model, inputs = make_unet(), unet_inputs(1)
    adapter = stir(attach(model, "tlora", RANK))
    with torch.no_grad():
        plain = call(model, inputs, 500, "sdxl")
        with adapter.frozen():
            once = call(model, inputs, 500, "sdxl")
            assert close(once, plain, 1e-5)
            assert torch.equal(call(model, inputs, 500, "sdxl"), once)
        stir(adapter)
        assert not torch.equal(call(model, inputs, 500, "sdxl"), plain)


@pytest.mark.parametrize("init", STARTS)
def test_every_start_can_be_selected(init: str) -> None:
    model, inputs = make_unet(), unet_inputs(1)
    before = call(model, inputs, 500, "sdxl")
    adapter = attach(model, "tlora", 4, init=init)
    assert torch.equal(call(model, inputs, 500, "sdxl"), before)
    assert adapter.info.init == init


def test_the_start_is_a_function_of_the_seed() -> None:
    a = attach(make_unet(), "tlora", 4, seed=1).state_dict()
    b = attach(make_unet(), "tlora", 4, seed=1).state_dict()
    c = attach(make_unet(), "tlora", 4, seed=2).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not any(torch.equal(a[k], c[k]) for k in a)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 33}, "rank 33 is above the width 32 of layer down_blocks"),
        ({"rank": 4, "min_rank": 5}, "min_rank 5 must lie in 1..rank"),
        ({"method": "dora"}, "unknown method 'dora'"),
        ({"rank": 4, "init": "zeros"}, "unknown init 'zeros'"),
        ({"rank": 4, "targets": "nothing"}, "no linear layer of the sdxl unet matches"),
        ({"rank": 4, "targets": "("}, "adapter.targets is not a regular expression"),
        ({"method": "lora", "rank": 4, "min_rank": 2}, "lora always uses its full rank"),
    ],
)
def test_impossible_adapters_are_refused(settings: dict[str, Any], message: str) -> None:
    model = make_unet()
    with pytest.raises(UserError) as caught:
        attach(model, **settings)
    assert message in str(caught.value)
    assert not any(m._forward_hooks for m in model.modules())


def test_a_model_of_no_family_is_refused() -> None:
    with pytest.raises(UserError, match="Linear is not a model that tlora can adapt"):
        attach(nn.Linear(4, 4))


def test_a_mask_that_fits_no_batch_is_an_error() -> None:
    model = make_unet()
    adapter = attach(model, "tlora", 4)
    adapter.call.set_timestep(torch.tensor([1.0, 2.0, 3.0]), torch.device("cpu"))
    layer = dict(model.named_modules())[next(iter(adapter.layers))]
    with pytest.raises(ValueError, match="made for 3 timesteps"):
        layer(torch.zeros(2, 5, 32))


@pytest.mark.parametrize("kind", ["Linear4bit", "Linear8bitLt"])
def test_quantized_layers_can_be_adapted(kind: str) -> None:
    """A quantized linear keeps its class; the update is added to what it gives."""
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    options = (
        {"quant_type": "nf4", "compute_dtype": torch.float32}
        if kind == "Linear4bit"
        else {"has_fp16_weights": False}
    )
    model = make_unet()
    for name, module in list(model.named_modules()):
        if name.endswith("attn1.to_q"):
            layer = getattr(bitsandbytes.nn, kind)(
                module.in_features, module.out_features, bias=False, **options
            )
            layer.load_state_dict({"weight": module.weight.data})
            model.set_submodule(name, layer.to("cpu"))
    inputs = unet_inputs(1)
    before = call(model, inputs, 300, "sdxl")
    adapter = attach(model, "tlora", RANK, MIN_RANK)
    assert torch.equal(call(model, inputs, 300, "sdxl"), before)
    stir(adapter)
    answer = call(model, inputs, 300, "sdxl")
    assert not torch.equal(answer, before)
    (answer**2).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adapter.parameters())
    adapter.remove()
    assert torch.equal(call(model, inputs, 300, "sdxl"), before)


def test_a_start_from_quantized_weights_is_refused() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    model = make_unet()
    layer = bitsandbytes.nn.Linear4bit(32, 32, bias=False, quant_type="nf4")
    layer.load_state_dict({"weight": torch.zeros(32, 32)})
    name = next(n for n, _ in model.named_modules() if n.endswith("attn1.to_q"))
    model.set_submodule(name, layer.to("cpu"))
    with pytest.raises(UserError, match="init weights_last decomposes the base weights"):
        attach(model, "tlora", RANK, init="weights_last")
