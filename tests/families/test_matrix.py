"""Families against diffusers, each by the same tests: trained, drawn, saved, sized.

The expected numbers come from the stock pipelines, or are written out in `family_cases`.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_cases import CASES, MIN_RANK, RANK, Case, drawn, load, trained
from PIL import Image
from torch import Tensor, nn
from training_runs import same_tensors, tlora, write_recipe

from tlora_cli import RankSchedule, UserError, attach
from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, family_of_base, load_pipeline
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.formats import FORMATS, read_adapter, read_origin
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.draw import Job, SamplingSettings, draw, encode_texts

SIZES = [(name, size) for name, case in CASES.items() for size in case.sizes]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def folder(case: Case, request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(f"tiny_{case.name}")
    return found


@pytest.fixture
def pipeline(case: Case, folder: Path) -> Any:
    return load(case.stock, folder)


# --- trained ----------------------------------------------------------------------------------


def test_a_picture_becomes_the_latents_of_the_stock_pipeline(case: Case, pipeline: Any) -> None:
    chance = torch.Generator().manual_seed(1)
    picture, vae = torch.rand(3, 64, 96, generator=chance) * 2 - 1, pipeline.vae
    with torch.no_grad():
        posterior = vae.encode(picture[None]).latent_dist
    found, scale = case.family.encode_image(vae, picture), vae.config.scaling_factor
    wanted = (posterior.mode() - vae.config.shift_factor) * scale
    assert found.mean.shape == (16, 8, 12)
    torch.testing.assert_close(found.mean, wanted[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.std, posterior.std[0] * scale, rtol=1e-5, atol=1e-6)


def test_gradients_with_checkpointing_and_a_mask_for_each_sample(case: Case, pipeline: Any) -> None:
    """Texts of three lengths: each sample alone leads to what it leads to among others."""
    denoiser, family = getattr(pipeline, case.family.denoiser), case.family
    noisy = torch.randn(3, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    prompts = ["a dog", "a dog in the snow, " * 3, "a photo of a cat"]
    with torch.no_grad():
        text = family.encode_prompts(pipeline, prompts)
    adapter, t = trained(denoiser), torch.tensor([10.0, 500.0, 990.0])

    def gradients(rows: slice) -> list[Tensor]:
        part = {key: value[rows] for key, value in text.items()}
        answer = family.predict(denoiser, noisy[rows], t[rows], part, 1.0)
        assert answer.shape == noisy[rows].shape
        found = torch.autograd.grad((answer**2).sum(), list(adapter.parameters()))
        return [one.clone() for one in found]

    plain = gradients(slice(0, 3))
    alone = [gradients(slice(n, n + 1)) for n in range(3)]
    adapter.enable_gradient_checkpointing()
    again = gradients(slice(0, 3))
    for one, checkpointed, *each in zip(plain, again, *alone, strict=True):
        torch.testing.assert_close(checkpointed, one, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sum(each), one, rtol=1e-3, atol=1e-4)


@pytest.mark.full
def test_a_run_learns_and_resumes_to_the_same_bits(
    case: Case, folder: Path, tmp_path: Path
) -> None:
    changes = {
        "adapter": {"rank": 4, "targets": "linear"},
        "train__steps": 24,
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


# --- drawn ------------------------------------------------------------------------------------


@pytest.mark.parametrize("guided", [0, 1])
def test_pictures_are_those_of_the_stock_pipeline(case: Case, pipeline: Any, guided: int) -> None:
    """Two prompts of other lengths in one batch, the guidance by the pipeline's own definition."""
    family, guidance = case.family, case.guidance[guided]
    settings = SamplingSettings(6, guidance, "default", "blurry", 64, 96)
    texts = encode_texts(family, pipeline, ["a dog", "a dog in the snow " * 3], "blurry")
    jobs = [Job(prompt, 5 + n) for n, prompt in enumerate(texts.prompts)]
    ours = [picture for _, picture in draw(family, pipeline, None, texts, jobs, settings, 2)]
    theirs = pipeline(
        prompt=[job.prompt for job in jobs],
        negative_prompt=["blurry"] * 2 if guided else None,
        generator=[torch.Generator().manual_seed(job.seed) for job in jobs],
        guidance_scale=guidance,
        width=64,
        height=96,
        num_inference_steps=6,
        **case.options,
    ).images
    for one, other in zip(ours, theirs, strict=True):
        assert one.size == (64, 96)
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


class Twin:
    """A stock denoiser without our hooks, whose weights are merged anew before each call."""

    def __init__(self, case: Case, denoiser: nn.Module, adapter: Any) -> None:
        self.seen: list[float] = []
        modules, (name, place) = dict(denoiser.named_modules()), case.timestep
        weights = {key: modules[key].weight.detach().clone() for key in adapter.layers}

        def merge(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            told = kwargs[name] if name in kwargs else args[place]
            assert len(set(told.tolist())) == 1
            t = round(case.time(float(told[0])), 3)
            self.seen.append(t)
            rank = math.floor((RANK - MIN_RANK) * (1000 - t) / 1000) + MIN_RANK
            for key, layer in adapter.layers.items():
                down, up = (x.detach().double() for x in layer.factors())
                merged = weights[key] + up[:, :rank] @ down[:rank]
                modules[key].weight.data = merged.float()

        denoiser.register_forward_pre_hook(merge, with_kwargs=True)


@pytest.mark.parametrize(
    ("way", "sampler"),
    [
        ("text-to-image", "euler"),
        pytest.param("text-to-image", "unipc", marks=pytest.mark.full),
        pytest.param("img2img", "euler", marks=pytest.mark.full),
        pytest.param("inpainting", "euler", marks=pytest.mark.full),
    ],
)
def test_the_masked_picture_is_that_of_merged_weights(
    case: Case, folder: Path, way: str, sampler: str
) -> None:
    stock, more = case.others.get(way, (case.stock, {}))
    options: dict[str, Any] = {"output_type": "np", "guidance_scale": case.guidance[1], **more}
    options |= {**case.options, "num_inference_steps": 12, "width": 64, "height": 64}
    if sampler == "unipc" and case.levels:
        options["sigmas"] = np.linspace(1, 1 / 12, 12)
    if way != "text-to-image":
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
        options |= {"image": Image.fromarray(noise), "strength": 0.8}
    if way == "inpainting":
        options["mask_image"] = Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), 16))
    ours, theirs = load(stock, folder), load(stock, folder)
    for one in (ours, theirs):
        one.scheduler = case.family.sampler(sampler, one.scheduler.config)
    bare = drawn(ours, **options)
    adapter = trained(getattr(ours, case.family.denoiser))
    twin = Twin(case, getattr(theirs, case.family.denoiser), adapter)
    masked, merged = drawn(ours, **options), drawn(theirs, **options)
    assert len({math.floor(t / 170) for t in twin.seen}) >= 3  # of these have another rank each
    assert np.abs(masked - merged).max() < 1e-3
    assert np.abs(masked - bare).max() > 1e-2
    adapter.remove()
    assert np.array_equal(drawn(ours, **options), bare)


@pytest.mark.full
def test_every_scheduler_solves_the_same_equation(case: Case, pipeline: Any) -> None:
    family, pictures = case.family, {}
    texts = encode_texts(family, pipeline, ["a dog"], "")
    for name in family.samplers:
        settings = SamplingSettings(24, case.guidance[0], name, "", 64, 96)
        [(_, drawn_by)] = draw(family, pipeline, None, texts, [Job("a dog", 5)], settings)
        pictures[name] = np.asarray(drawn_by) / 255
    assert len(pictures) >= 3
    for name, one in pictures.items():
        assert np.abs(one - pictures["euler"]).mean() < 0.02, name


# --- saved ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["tlora", pytest.param("kohya", marks=pytest.mark.full)])
def test_files_load_in_stock_diffusers_and_here(
    case: Case, pipeline: Any, form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every linear layer of the blocks; without a warning of diffusers' converter."""
    family = case.family
    write = FORMATS[form].write
    assert write is not None
    if form == "kohya" and family.kohya is None:
        pytest.skip(f"kohya's names of {family.title} are not known")
    denoiser, options = getattr(pipeline, family.denoiser), {**case.options, "output_type": "np"}
    options["guidance_scale"] = case.guidance[1]
    bare = drawn(pipeline, **options)
    adapter = trained(denoiser, "lora", targets="linear")
    assert len(adapter.layers) == case.layers[1]
    ours, weights = drawn(pipeline, **options), adapter.weights()
    adapter.remove()
    linear = {n: m for n, m in denoiser.named_modules() if isinstance(m, nn.Linear)}
    file = tmp_path / "lora.safetensors"
    write(file, weights, {name: layer.out_features for name, layer in linear.items()})
    assert read_origin(file)[0] == family.name
    back = read_adapter(file, linear).layers
    assert back.keys() == weights.layers.keys()
    for name, (down, up) in weights.layers.items():
        torch.testing.assert_close(back[name][1] @ back[name][0], up @ down, rtol=1e-6, atol=1e-6)
    with caplog.at_level("WARNING"):
        pipeline.load_lora_weights(str(tmp_path), weight_name=file.name)
    # Of text encoders, which a LoRA may also have, stock diffusers says that there are no layers.
    said = [record.getMessage() for record in caplog.records]
    assert all("prefix='text_encoder" in one for one in said), said
    theirs = drawn(pipeline, **options)
    assert np.abs(theirs - ours).max() < 1e-4
    assert np.abs(theirs - bare).max() > 1e-2


# --- sized ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_the_published_sizes(name: str, size: str) -> None:
    case, family = CASES[name], FAMILIES[name]
    wanted = case.sizes[size]
    denoiser = meta_denoiser(name, wanted.base)
    assert sum(p.numel() for p in denoiser.parameters()) == wanted.parameters
    adapter = attach(denoiser, "vanilla_tlora", 32, 1)
    assert len(adapter.layers) == wanted.layers
    assert sum(p.numel() for p in adapter.parameters()) == wanted.trained
    kinds = {"attn", "attn2", "attention"}
    blocks = {n for n, _ in denoiser.named_modules() if n.rpartition(".")[2] in kinds}
    touched = {one for one in blocks if any(n.startswith(f"{one}.") for n in adapter.layers)}
    assert blocks == touched, "no attention block is left out"
    for t in (0.0, 125.0, 500.0, 731.0, 1000.0):
        for dtype in (torch.float32, torch.bfloat16):
            told = family.told(torch.tensor([t])).to(dtype)
            adapter.call.set_timestep(told, torch.device("cpu"))
            exact = t if dtype == torch.float32 else round(case.time(float(told.double())), 4)
            mask = adapter.call.mask(1, torch.float32)
            assert mask is not None
            assert int(mask.sum()) == math.floor(31 * (1000 - exact) / 1000) + 1
            assert abs(exact - t) <= 4  # bf16 has eight bits


def test_the_mask_holds_for_every_layer_of_the_tiny_one(case: Case, pipeline: Any) -> None:
    denoiser = getattr(pipeline, case.family.denoiser)
    adapter = attach(denoiser, "vanilla_tlora", RANK, schedule=RankSchedule(RANK, MIN_RANK))
    assert len(adapter.layers) == case.layers[0]


# --- bases ------------------------------------------------------------------------------------


def test_a_base_is_found_and_one_of_another_family_is_refused(
    case: Case, folder: Path, tiny_flux: Path
) -> None:
    assert family_of_base(Base(str(folder))) == case.name
    with pytest.raises(UserError) as refused:
        load_pipeline(FAMILIES["flux"], Base(str(folder)), parts=())
    assert refused.value.do == f"set family: {case.name}, or change the base"
    with pytest.raises(UserError) as refused:
        load_pipeline(case.family, Base(str(tiny_flux)), parts=())
    assert f"is a FluxPipeline, not a {case.name} model" in refused.value.what


def test_a_recipe_that_names_no_method_has_the_schedule_alone(case: Case, folder: Path) -> None:
    least = {
        "family": case.name,
        "base": str(folder),
        "concept": {"images": "a.png", "class": "dog"},
        "output": {"dir": "run"},
    }
    own = Recipe.model_validate(least).adapter
    assert (own.method, own.rank, own.min_rank) == ("vanilla_tlora", 32, 1)
    plain = Recipe.model_validate({**least, "adapter": {"method": "lora"}}).adapter
    assert (plain.method, plain.rank, plain.min_rank) == ("lora", 32, 32)
