"""Phrases that no picture shows: how they are dealt, what they add to the target, whole runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_denoisers import make_unet, put, stir, unet_inputs
from torch import Tensor
from training_runs import recipe_values, run, same_tensors

from tlora_cli.families import FAMILIES, LatentDistribution
from tlora_cli.formulas.objectives import Epsilon, TimestepSampler
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.sections import ConceptConfig
from tlora_cli.training.batch import Batch, Dropout, Example, Phrased, draw_batch
from tlora_cli.training.execution import Recorded
from tlora_cli.training.phrases import LISTS, deal, phrased_texts, phrases_of
from tlora_cli.training.step import Loss, forward_backward

CPU = torch.device("cpu")


def concept(**more: object) -> ConceptConfig:
    return ConceptConfig.model_validate({"images": "x.png", "class": "dog", **more})


# --- which phrases, and where they stand ----------------------------------------------------------


def test_auto_means_the_list_of_the_class_and_the_words_of_the_built_in_world() -> None:
    assert phrases_of(concept(), "some/model") == ()
    assert phrases_of(concept(phrases="auto"), "some/model") == LISTS["animals"]
    assert phrases_of(concept(phrases="auto", **{"class": "vase"}), "x") == LISTS["things"]
    assert phrases_of(concept(phrases=["asleep"]), "some/model") == ["asleep"]
    assert "wearing a crown" in phrases_of(concept(phrases="auto"), "toy-sdxl")


def test_a_phrase_stands_at_the_end_for_concept_and_class_alike() -> None:
    texts = phrased_texts(["a photo of sks dog, in the snow"], ["wearing a hat"], concept())
    assert texts == {
        "a photo of sks dog, in the snow": [
            (
                "a photo of sks dog, in the snow, wearing a hat",
                "a photo of dog, in the snow, wearing a hat",
            )
        ]
    }


def test_all_phrases_come_up_equally_often() -> None:
    phrases = [f"phrase {n}" for n in range(10)]
    dealt = deal([f"caption {n}" for n in range(25)] * 2, phrases)
    assert len(dealt) == 25 and all(len(set(own)) == 4 for own in dealt.values())
    counts = {one: sum(one in own for own in dealt.values()) for one in phrases}
    assert set(counts.values()) == {10}
    assert deal(["a"], ["x", "y"]) == {"a": ["x", "y"]}


# --- batches --------------------------------------------------------------------------------------


def row(value: float) -> dict[str, Tensor]:
    return {"prompt_embeds": torch.full((1, 3, 2), float(value))}


def example(number: int) -> Example:
    latent = torch.zeros(4, 4, 4)
    phrases = tuple(
        Phrased(f"{number}, {n}", row(number + n / 10), row(100 + number + n / 10)) for n in (1, 2)
    )
    sizes = {"time_ids": torch.ones(1, 6)}
    return Example(
        LatentDistribution(latent, latent), row(number) | sizes, None, str(number),
        row(100 + number), phrases,
    )  # fmt: skip


def drawn(index: int, dropout: Dropout | None = None, always: bool = False) -> Batch:
    return draw_batch(
        [example(1), example(2)], [], size=2, seed=0, index=index, device=CPU, always=always,
        objective=Epsilon(torch.ones(1000)), timesteps=TimestepSampler(), dropout=dropout,
    )  # fmt: skip


def test_half_of_the_captions_have_a_phrase_and_the_class_has_the_same() -> None:
    seen: dict[float, int] = {}
    for index in range(400):
        batch = drawn(index)
        own = batch.conditioning["prompt_embeds"][:, 0, 0]
        assert batch.class_conditioning is not None
        plain = batch.class_conditioning["prompt_embeds"][:, 0, 0]
        phrased = batch.phrase_conditioning
        of_class = plain if phrased is None else phrased["prompt_embeds"][:, 0, 0]
        torch.testing.assert_close(of_class, own + 100)
        torch.testing.assert_close(plain, own.floor() + 100)
        if phrased is None:
            assert torch.equal(own, own.floor()), "left out only where no caption has a phrase"
        for value in own.tolist():
            seen[round(value % 1, 1)] = seen.get(round(value % 1, 1), 0) + 1
    assert seen[0.0] / 800 == pytest.approx(0.5, abs=0.05)
    assert seen[0.1] / 800 == pytest.approx(0.25, abs=0.05)
    assert drawn(7).conditioning["prompt_embeds"].equal(drawn(7).conditioning["prompt_embeds"])


def test_a_caption_that_is_left_out_has_no_phrase_either() -> None:
    dropout = Dropout(0.5, row(-1.0))
    for index in range(50):
        batch = drawn(index, dropout, always=True)
        silent = batch.conditioning["prompt_embeds"][:, 0, 0] == -1
        assert batch.class_conditioning is not None and batch.phrase_conditioning is not None
        same = (
            batch.class_conditioning["prompt_embeds"] == batch.phrase_conditioning["prompt_embeds"]
        )
        assert same[silent].all()


# --- the loss -------------------------------------------------------------------------------------

ALPHAS = torch.linspace(0.999, 0.01, 1000)


def batch_of(*, phrases: bool = True) -> Batch:
    """Two concept samples and one class picture."""
    given = unet_inputs(3, seed=3)
    conditioning = {
        "prompt_embeds": given["encoder_hidden_states"],
        "text_embeds": given["added_cond_kwargs"]["text_embeds"],
        "time_ids": given["added_cond_kwargs"]["time_ids"],
    }
    own = {key: value[:2] for key, value in conditioning.items()}
    plain = own | {"prompt_embeds": own["prompt_embeds"].flip(1)}
    phrased = own | {"prompt_embeds": own["prompt_embeds"].flip(2)}
    chance = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(3, 4, 16, 16, generator=chance) for _ in range(2))
    weight = torch.rand(3, 1, 16, 16, generator=chance)
    t = torch.tensor([150, 800, 400])
    return Batch(latents, noise, t, conditioning, weight, 2, plain, phrased if phrases else plain)


def answer(net: torch.nn.Module, batch: Batch, text: dict[str, Tensor], count: int) -> Tensor:
    share = ALPHAS[batch.timesteps[:count]][:, None, None, None]
    noisy = share.sqrt() * batch.latents[:count] + (1 - share).sqrt() * batch.noise[:count]
    added = {"text_embeds": text["text_embeds"], "time_ids": text["time_ids"]}
    given = {"encoder_hidden_states": text["prompt_embeds"], "added_cond_kwargs": added}
    result: Tensor = net(noisy, batch.timesteps[:count], **given).sample
    return result


def test_the_target_gains_what_the_base_makes_of_a_phrase() -> None:
    """Loss and gradients against the formula, written out with a base of its own."""
    model, base, batch = make_unet(), make_unet(), batch_of()
    adapter = put(model, "tlora")
    stir(adapter)
    parameters = list(adapter.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    loss = Loss(
        FAMILIES["sdxl"], model, Epsilon(ALPHAS), torch.float32, prior_weight=0.5,
        without=adapter.off,
    )  # fmt: skip
    before = batch.noise.clone()
    losses = forward_backward(loss, Tensor.backward)(batch)
    assert torch.equal(batch.noise, before), "the batch stays as it was"
    got = [parameter.grad for parameter in parameters if parameter.grad is not None]

    plain, phrased, weight = batch.class_conditioning, batch.phrase_conditioning, batch.weight
    assert plain is not None and phrased is not None and weight is not None
    with torch.no_grad():
        gained = answer(base, batch, phrased, 2) - answer(base, batch, plain, 2)
    assert float(gained.abs().max()) > 1e-3
    target = batch.noise.clone()
    target[:2] += gained
    error = (answer(model, batch, batch.conditioning, 3) - target).square().mean(1, keepdim=True)
    expected = (error * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)
    torch.testing.assert_close(losses, expected.detach(), atol=1e-5, rtol=1e-5)
    whole = expected[:2].mean() + 0.5 * expected[2]
    wanted = torch.autograd.grad(whole, parameters, allow_unused=True)
    used = [one for one in wanted if one is not None]
    assert len(got) == len(used) > 0
    for one, other in zip(got, used, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-3)


def test_equal_texts_add_nothing() -> None:
    """So a recorded step, whose batches are all alike, learns the same from captions alone."""
    model, batch = make_unet(), batch_of(phrases=False)
    adapter = put(model, "tlora")
    stir(adapter)
    loss = Loss(FAMILIES["sdxl"], model, Epsilon(ALPHAS), torch.float32, without=adapter.off)
    passes = forward_backward(loss, Tensor.backward)

    torch.testing.assert_close(
        passes(batch), passes(replace(batch, phrase_conditioning=None)), atol=0, rtol=0
    )


def test_a_recorded_step_takes_each_batchs_phrases() -> None:
    model = make_unet()
    adapter = put(model, "tlora")
    stir(adapter)
    loss = Loss(FAMILIES["sdxl"], model, Epsilon(ALPHAS), torch.float32, without=adapter.off)
    passes = forward_backward(loss, Tensor.backward)
    parameters = list(adapter.parameters())

    def record(work: object) -> object:
        work()  # type: ignore[operator]
        return work

    recorded = Recorded(passes, parameters, record)  # type: ignore[arg-type]
    for phrases in (True, False, True):
        batch = batch_of(phrases=phrases)
        assert torch.equal(recorded(batch), passes(batch))


# --- whole runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["tiny_sdxl", "tiny_flux"])
def test_a_run_resumes_to_the_same_bits(
    base: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tiny = request.getfixturevalue(base)
    changes = {"concept__phrases": ["wearing a hat", "asleep"], "concept__caption_dropout": 0.2}
    run(tiny, tmp_path / "whole", **changes)
    run(tiny, tmp_path / "part", **changes, train__steps=3)
    run(tiny, tmp_path / "part", resume=True, **changes, train__steps=6)
    run(tiny, tmp_path / "plain", concept__caption_dropout=0.2)
    whole, part, plain = (
        tmp_path / name / "run/adapter.safetensors" for name in ("whole", "part", "plain")
    )
    assert same_tensors(whole, part)
    assert not same_tensors(whole, plain)


def test_a_method_that_learns_a_word_reads_its_phrases_anew(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    method = {"adapter": {"method": "textual_inversion"}}
    run(tiny_sdxl, tmp_path, **method, concept__phrases=["wearing a hat"])
    assert (tmp_path / "run/adapter.safetensors").is_file()


def test_an_empty_phrase_is_refused(tiny_sdxl: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds an empty phrase"):
        Recipe.model_validate(recipe_values(tiny_sdxl, tmp_path, concept__phrases=["x", " "]))
