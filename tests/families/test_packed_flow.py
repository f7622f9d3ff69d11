"""Families over packed latents against diffusers, each by the same tests.

The expected numbers come from the stock pipelines and their loaders.
"""

from __future__ import annotations

import json
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packed_cases import CASES, MIN_RANK, RANK, Case, drawn, pixels, trained
from torch import Tensor, nn
from training_runs import recipe_values, same_tensors, tlora, write_recipe

from tlora_cli import RankSchedule, UserError, attach
from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, family_of_base, load_pipeline
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.families.text_length import cuts
from tlora_cli.families.text_rows import joined
from tlora_cli.formats import FORMATS, read_adapter, read_origin
from tlora_cli.recipe.models import Recipe


def full(value: Any) -> Any:
    """Return a parameter of the full suite."""
    return pytest.param(value, marks=pytest.mark.full)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def folder(case: Case, request: pytest.FixtureRequest) -> Path:
    found = request.getfixturevalue(f"tiny_{case.family}")
    assert isinstance(found, Path)
    return found


# --- what is trained --------------------------------------------------------------------------


def test_a_picture_becomes_latents_of_mean_0_and_deviation_1(case: Case, folder: Path) -> None:
    """By the VAE's numbers for each channel, as the pipelines of both families undo it."""
    vae = case.stock(folder).vae
    picture = pixels(96, 64)
    ours = case.kind.encode_image(vae, picture)
    with torch.no_grad():
        found = vae.encode(case.given(picture)[None, :, None]).latent_dist
    mean, std = (torch.tensor(vae.config[key]) for key in ("latents_mean", "latents_std"))
    wanted = (found.mode()[0, :, 0] - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    assert ours.mean.shape == case.latent(96, 64)
    torch.testing.assert_close(ours.mean, wanted, rtol=1e-5, atol=1e-6)
    spread = found.std[0, :, 0] / std.view(-1, 1, 1)
    torch.testing.assert_close(ours.std, spread, rtol=1e-5, atol=1e-6)


def test_gradients_with_checkpointing_and_a_mask_for_each_sample(case: Case, folder: Path) -> None:
    pipeline = case.stock(folder)
    denoiser, family = pipeline.transformer, case.kind
    chance = torch.Generator().manual_seed(0)
    noisy = torch.randn(3, *case.latent(64, 64), generator=chance)
    with torch.no_grad():
        texts = [family.encode_prompts(pipeline, [text]) for text in case.texts]
    adapter, t = trained(denoiser), torch.tensor([10.0, 500.0, 990.0])

    def gradients(rows: slice) -> list[Tensor]:
        answer = family.predict(denoiser, noisy[rows], t[rows], joined(texts[rows]), 1.0)
        found = torch.autograd.grad((answer**2).sum(), list(adapter.parameters()))
        return [one.clone() for one in found]

    plain = gradients(slice(0, 3))
    alone = [gradients(slice(n, n + 1)) for n in range(3)]
    adapter.enable_gradient_checkpointing()
    again = gradients(slice(0, 3))
    for one, checkpointed, *each in zip(plain, again, *alone, strict=True):
        torch.testing.assert_close(checkpointed, one, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sum(each), one, rtol=1e-3, atol=1e-3)


# --- what is drawn ----------------------------------------------------------------------------


@pytest.mark.parametrize("guided", [True, full(False)])
def test_latents_and_pictures_are_those_of_the_stock_pipeline(
    case: Case, guided: bool, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline, family = case.stock(folder), case.kind
    options = case.guided if guided else case.plain
    theirs = case.shown(drawn(pipeline, output_type="pil", **options)[0])
    with caplog.at_level("WARNING"), torch.no_grad():
        latents = family.sample(
            pipeline,
            family.encode_prompts(pipeline, ["a dog"]),
            family.encode_negative(pipeline, ""),
            width=64,
            height=96,
            steps=6,
            guidance=case.guidance[0 if guided else 1],
            generators=[torch.Generator().manual_seed(5)],
        )
    assert not caplog.records  # the pipeline has nothing to say of how it is called
    assert latents.shape == (1, *case.latent(64, 96))
    told = drawn(pipeline, output_type="latent", **options)
    torch.testing.assert_close(family.unpacked(told, 64, 96), latents, rtol=1e-5, atol=1e-6)
    [ours] = family.decode(pipeline.vae, latents)
    assert ours.size == (64, 96)
    assert np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).max() <= 1


@pytest.mark.full
def test_prompts_of_different_lengths_are_drawn_as_each_alone(case: Case, folder: Path) -> None:
    pipeline, family = case.stock(folder), case.kind
    words = ("a dog", "a dog in the snow")
    with torch.no_grad():
        texts = [family.encode_prompts(pipeline, [text]) for text in words]
        negative = family.encode_negative(pipeline, "")
        assert negative is not None

        def sample(rows: dict[str, Tensor], seeds: list[int]) -> Tensor:
            none = joined([negative] * len(seeds))
            return family.sample(
                pipeline,
                rows,
                none,
                width=64,
                height=64,
                steps=3,
                guidance=case.guidance[0],
                generators=[torch.Generator().manual_seed(seed) for seed in seeds],
            )

        together = sample(joined(texts), [0, 1])
        alone = [sample(text, [seed]) for seed, text in enumerate(texts)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", ["euler", full("unipc")])
def test_the_masked_picture_is_that_of_a_callback_that_sets_the_rank(
    case: Case, sampler: str, folder: Path, tmp_path: Path
) -> None:
    """The twin is stock: our file through `load_lora_weights`, its columns cut before each step."""
    pipeline, twin = case.stock(folder), case.stock(folder)
    for one in (pipeline, twin):
        one.scheduler = case.kind.sampler(sampler, one.scheduler.config)
    bare = drawn(pipeline, **case.guided)
    adapter = trained(pipeline.transformer)
    adapter.save(tmp_path / "adapter.safetensors")
    masked = drawn(pipeline, **case.guided)
    twin.load_lora_weights(str(tmp_path), weight_name="adapter.safetensors")
    ups = [m for name, m in twin.transformer.named_modules() if name.endswith("lora_B.default_0")]
    whole = [one.weight.detach().clone() for one in ups]
    assert len(ups) == len(adapter.layers)
    seen: list[int] = []

    def cut(t: float) -> None:
        rank = math.floor((RANK - MIN_RANK) * (1000 - t) / 1000) + MIN_RANK
        seen.append(rank)
        for one, full in zip(ups, whole, strict=True):
            one.weight.data = full * (torch.arange(RANK) < rank)

    def after(pipe: Any, step: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step + 1 < len(pipe.scheduler.timesteps):
            cut(float(pipe.scheduler.timesteps[step + 1]))
        return values

    cut(1000.0)  # both samplers begin there
    by_hand = drawn(twin, callback_on_step_end=after, **case.guided)
    assert len(set(seen)) >= 3
    assert np.abs(masked - by_hand).max() < 1e-4
    assert np.abs(masked - bare).max() > 1e-2
    cut(0.0)
    twin.disable_lora()
    assert np.abs(drawn(twin, **case.guided) - bare).max() < 1e-5


@pytest.mark.full
def test_every_scheduler_solves_the_same_equation(case: Case, folder: Path) -> None:
    pipeline = case.stock(folder)
    settings = {"num_inference_steps": 20, **case.plain}
    euler = drawn(pipeline, **settings)
    own = pipeline.scheduler.config
    for name in case.kind.samplers:
        pipeline.scheduler = case.kind.sampler(name, own)
        assert np.abs(drawn(pipeline, **settings) - euler).mean() < 0.02, name


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["tlora", full("diffusers"), full("kohya")])
def test_files_load_in_stock_diffusers_and_here(
    form: str, case: Case, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every linear layer of the blocks; without a warning of diffusers' converter."""
    pipeline = case.stock(folder)
    bare = drawn(pipeline, **case.plain)
    adapter = trained(pipeline.transformer, "lora", targets="linear")
    ours, weights = drawn(pipeline, **case.plain), adapter.weights()
    adapter.remove()
    linear = {n: m for n, m in pipeline.transformer.named_modules() if isinstance(m, nn.Linear)}
    file = tmp_path / "lora.safetensors"
    write = FORMATS[form].write
    assert write is not None
    sizes = {name: layer.out_features for name, layer in linear.items()}
    if form == "kohya" and case.kind.kohya is None:
        with pytest.raises(UserError, match=f"the layers of {case.kind.title} is not known"):
            write(file, weights, sizes)
        return
    write(file, weights, sizes)
    assert read_origin(file)[0] == case.family
    back = read_adapter(file, linear).layers
    assert back.keys() == weights.layers.keys()
    for name, (down, up) in weights.layers.items():
        torch.testing.assert_close(back[name][1] @ back[name][0], up @ down, rtol=1e-6, atol=1e-6)
    with caplog.at_level("WARNING"):
        pipeline.load_lora_weights(str(tmp_path), weight_name=file.name)
    assert not caplog.records
    theirs = drawn(pipeline, **case.plain)
    assert np.abs(theirs - ours).max() < 1e-4
    assert np.abs(theirs - bare).max() > 1e-2


# --- layers -----------------------------------------------------------------------------------


def test_the_published_sizes(case: Case) -> None:
    denoiser = meta_denoiser(case.family)
    assert sum(p.numel() for p in denoiser.parameters()) == case.published
    adapter = attach(denoiser, "vanilla_tlora", 32, 1)
    names = list(adapter.layers)
    assert len(names) == case.layers
    assert sum(p.numel() for p in adapter.parameters()) == case.trained
    left = {name for name, _ in denoiser.named_modules() if name.endswith((".attn", "attn2"))}
    left -= {name.partition(".attn.")[0] + ".attn" for name in names}
    assert len(left) == case.left_out
    assert all(name.startswith("text_fusion.") for name in left)


@pytest.mark.parametrize("t", [0.0, 125.0, 500.0, 731.0, 1000.0])
def test_the_mask_follows_the_timestep_that_the_model_is_told(
    t: float, case: Case, folder: Path
) -> None:
    """In fp32 exactly t; in bf16 what rounding leaves, before or after the division."""
    schedule = RankSchedule(RANK, MIN_RANK)
    adapter = attach(
        meta_denoiser(case.family, str(folder)), "vanilla_tlora", RANK, schedule=schedule
    )
    for dtype in (torch.float32, torch.bfloat16):
        whole = torch.full((1,), t)
        for told in (whole.to(dtype) / 1000, (whole / 1000).to(dtype)):
            adapter.call.set_timestep(told, torch.device("cpu"))
            exact = t if dtype == torch.float32 else round(float(told.double() * 1000), 4)
            mask = adapter.call.mask(1, torch.float32)
            rank = math.floor((RANK - MIN_RANK) * (1000 - exact) / 1000) + MIN_RANK
            assert int(mask.sum()) == rank
            assert abs(exact - t) <= 4  # bf16 has eight bits


@pytest.mark.full
def test_names_tell_its_files_from_those_of_others(case: Case) -> None:
    for name, kind in FAMILIES.items():
        layers = list(kind.target_layers(meta_denoiser(name), "linear"))
        for names in (layers, [one.replace(".", "_") for one in layers]):
            assert case.kind.knows(names) == (name == case.family), name
            others = [one.name for one in FAMILIES.values() if one.knows(names)]
            assert others == [name]


# --- bases ------------------------------------------------------------------------------------


def test_a_base_is_found_and_others_are_refused(case: Case, folder: Path, tiny_flux: Path) -> None:
    base = Base(str(folder))
    assert family_of_base(base) == case.family
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert type(load_pipeline(case.kind, base, parts=("denoiser",))) is case.pipeline
    with pytest.raises(UserError) as refused:
        load_pipeline(FAMILIES["flux"], base, parts=())
    assert f"is a {case.pipeline.__name__}, not a flux model" in refused.value.what
    assert refused.value.do == f"set family: {case.family}, or change the base"
    with pytest.raises(UserError) as refused:
        load_pipeline(case.kind, Base(str(tiny_flux)), parts=())
    assert f"is a FluxPipeline, not a {case.family} model" in refused.value.what


def test_a_base_without_its_text_encoder_is_refused(
    case: Case, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "base")
    file = tmp_path / "base" / "model_index.json"
    index = json.loads(file.read_text())
    file.write_text(json.dumps({**index, "text_encoder": [None, None]}))
    with pytest.raises(UserError, match="it has no text_encoder"):
        load_pipeline(case.kind, Base(str(tmp_path / "base")), parts=())


def test_what_is_cut_off_of_a_prompt(case: Case, folder: Path) -> None:
    """The last token that is said to be read changes the text's states; the next doesn't."""
    pipeline, family = load_pipeline(case.kind, Base(str(folder)), parts=("text",)), case.kind
    if not case.cuts:
        assert not list(cuts(family, pipeline, "a dog " * 1000))
        return
    room = family.text_room(pipeline.tokenizer, family.text_tokens)
    whole, other = "q" * room, "q" * (room - 1) + "w"
    assert len(pipeline.tokenizer(whole).input_ids) == room
    assert not list(cuts(family, pipeline, whole))
    [cut] = cuts(family, pipeline, whole + "w")
    assert (cut.limit, cut.tokens, cut.rest) == (room, room + 1, "w")
    with torch.no_grad():
        states = [
            family.encode_prompts(pipeline, [text])["prompt_embeds"]
            for text in (whole, other, whole + "w", whole + "x")
        ]
    assert torch.equal(states[2], states[3])
    assert not torch.equal(states[0], states[1])


@pytest.mark.parametrize("method", ["textual_inversion", "custom_diffusion"])
def test_no_word_is_learned(method: str, case: Case, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cuts a word into other tokens behind a space"):
        Recipe.model_validate(recipe_values(folder, tmp_path, adapter={"method": method}))
    with pytest.raises(UserError, match=r"learns a word|keys and values of cross-attention"):
        attach(case.stock(folder), method)


# --- through the command line -----------------------------------------------------------------


@pytest.mark.full
def test_a_run_learns_and_resumes_to_the_same_bits(
    case: Case, folder: Path, tmp_path: Path
) -> None:
    """With captions of different lengths, one of them dropped at times."""
    changes = {
        "adapter": {"rank": 4, "targets": "linear"},
        "concept__caption_dropout": 0.2,
        "train__steps": 24,
        "train__batch_size": 2,
        "train__optimizer": {"name": "adamw", "lr": 3e-2},
        "train__checkpoint": {"every": 12},
        "train__timesteps": {"low": 0, "high": 500},
        "train__gradient_checkpointing": True,
    }
    done = tlora("train", "--config", write_recipe(folder, tmp_path, **changes))
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [record["loss"] for record in map(json.loads, lines) if "loss" in record]
    assert sum(losses[-6:]) < 0.96 * sum(losses[:6])
    again = shutil.copytree(tmp_path / "run", tmp_path / "again")
    shutil.rmtree(again / "checkpoints" / "checkpoint-000024")
    (again / "adapter.safetensors").unlink()
    done = tlora("train", "--resume", "--output", again)
    assert done.returncode == 0, done.stderr
    assert same_tensors(*(one / "adapter.safetensors" for one in (tmp_path / "run", again)))


def test_a_recipe_without_a_method_has_the_schedule_alone(
    case: Case, folder: Path, tmp_path: Path
) -> None:
    recipe = Recipe.model_validate(recipe_values(folder, tmp_path, adapter={}))
    assert (recipe.adapter.method, recipe.adapter.rank, recipe.adapter.min_rank) == (
        "vanilla_tlora",
        32,
        1,
    )
