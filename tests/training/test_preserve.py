"""The class held to the base's own answers: the formula, and the adapter that is off for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_denoisers import FAMILIES, ON_LAYERS, call, make_unet, put, stir, unet_inputs
from torch import Tensor

from tlora_cli.families import FAMILIES as KNOWN
from tlora_cli.formulas.objectives import Epsilon
from tlora_cli.training.batch import Batch
from tlora_cli.training.step import Loss, forward_backward

WEIGHT = 0.7


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ON_LAYERS)
def test_an_adapter_that_is_off_answers_as_the_base(method: str, family: str) -> None:
    make, inputs, _ = FAMILIES[family]
    if family == "flux" and method == "custom_diffusion":
        pytest.skip("FLUX has no cross-attention")
    base = make()
    model = make()
    adapter = put(model, method)
    stir(adapter)
    given = inputs(2)
    t = torch.tensor([100.0, 700.0])
    with torch.no_grad():
        before = call(model, given, t, family)
        with adapter.off():
            off = call(model, given, t, family)
        after = call(model, given, t, family)
        assert torch.equal(before, after)
        assert not torch.allclose(before, off, atol=1e-5)
        assert torch.allclose(off, call(base, given, t, family), atol=1e-6)


def batch_of() -> Batch:
    given = unet_inputs(2, seed=3)
    conditioning = {
        "prompt_embeds": given["encoder_hidden_states"],
        "text_embeds": given["added_cond_kwargs"]["text_embeds"],
        "time_ids": given["added_cond_kwargs"]["time_ids"],
    }
    classes = {**conditioning, "prompt_embeds": conditioning["prompt_embeds"].flip(1)}
    chance = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(2, 4, 16, 16, generator=chance) for _ in range(2))
    t = torch.tensor([150, 800])
    return Batch(latents, noise, t, conditioning, None, 2, classes)


def test_gradients_are_those_of_the_whole_loss() -> None:
    """Two backward passes, one after the other, against the sum of both terms, written out."""
    model, batch = make_unet(), batch_of()
    adapter = put(model, "tlora")
    stir(adapter)
    objective = Epsilon(torch.linspace(0.999, 0.01, 1000))
    loss = Loss(
        KNOWN["sdxl"],
        model,
        objective,
        torch.float32,
        penalty=adapter.penalty,
        preserve_weight=WEIGHT,
        without=adapter.off,
    )
    parameters = list(adapter.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    forward_backward(loss, Tensor.backward)(batch)
    got = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]

    def answer(text: dict[str, Tensor], net: Any) -> Tensor:
        share = torch.linspace(0.999, 0.01, 1000)[batch.timesteps][:, None, None, None]
        noisy = share.sqrt() * batch.latents + (1 - share).sqrt() * batch.noise
        added = {"text_embeds": text["text_embeds"], "time_ids": text["time_ids"]}
        result: Tensor = net(
            noisy, batch.timesteps, text["prompt_embeds"], added_cond_kwargs=added
        ).sample
        return result

    assert batch.class_conditioning is not None
    goal = answer(batch.class_conditioning, make_unet()).detach()
    concept = (answer(batch.conditioning, model) - batch.noise).square().mean()
    expected = torch.autograd.grad(concept, parameters)
    kept = WEIGHT * (answer(batch.class_conditioning, model) - goal).square().mean()
    expected = [a + b for a, b in zip(expected, torch.autograd.grad(kept, parameters), strict=True)]
    assert len(got) == len(expected) > 0
    for one, other in zip(got, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6, rtol=1e-3)
    assert float(kept.detach()) > 1e-6
