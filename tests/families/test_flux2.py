"""FLUX.2 against diffusers: what is trained, what is drawn, which layers, which bases.

The expected numbers come from the functions of the stock pipelines, or are written out here.
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
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from torch import Tensor, nn
from training_runs import recipe_values, same_tensors, tlora, write_recipe

from tlora_cli import Adapter, RankSchedule, UserError, attach
from tlora_cli.families import FAMILIES
from tlora_cli.families.flux2 import FLUX2, LARGE, MIDDLE
from tlora_cli.families.loading import Base, family_of_base, load_pipeline
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.families.text_length import cuts
from tlora_cli.formats import FORMATS, read_adapter, read_origin
from tlora_cli.recipe.models import Recipe
from tlora_cli.training.batch import Batch
from tlora_cli.training.step import Loss

RANK, MIN_RANK = 8, 2
KINDS = pytest.mark.parametrize("kind", ["klein", "dev"])
STOCK: dict[str, Any] = {"klein": Flux2KleinPipeline, "dev": Flux2Pipeline}


@pytest.fixture
def folder(kind: str, tiny_flux2: Path, tiny_flux2_dev: Path) -> Path:
    return {"klein": tiny_flux2, "dev": tiny_flux2_dev}[kind]


def stock(kind: str, folder: Path) -> Any:
    """Return the pipeline as diffusers loads it."""
    pipeline = STOCK[kind].from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def trained(denoiser: Any, method: str = "vanilla_tlora", **options: Any) -> Adapter:
    """Attach an adapter, and move it as if it were trained."""
    options = options or {"min_rank": MIN_RANK}
    adapter = attach(denoiser, method, RANK, **options)
    chance = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=chance)
    return adapter


def pixels(width: int = 64, height: int = 64) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


# --- what is trained --------------------------------------------------------------------------


def test_a_picture_becomes_the_latents_of_the_stock_pipeline(tiny_flux2: Path) -> None:
    pipeline = stock("klein", tiny_flux2)
    picture = pixels(96, 64)
    theirs = pipeline._encode_vae_image(picture[None], generator=None)
    ours = FLUX2.encode_image(pipeline.vae, picture)
    patchify = pipeline._patchify_latents
    assert ours.mean.shape == (32, 8, 12)
    torch.testing.assert_close(patchify(ours.mean[None]), theirs, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        spread = pipeline.vae.encode(picture[None]).latent_dist.std
    deviation = (pipeline.vae.bn.running_var + 1e-4).sqrt().view(1, -1, 1, 1)
    wanted = patchify(spread) / deviation
    torch.testing.assert_close(patchify(ours.std[None]), wanted, rtol=1e-5, atol=1e-6)


@KINDS
def test_a_training_step_is_that_of_diffusers(kind: str, folder: Path) -> None:
    """Its formulas are those of `train_dreambooth_lora_flux2_klein.py`, on the same numbers."""
    pipeline = stock(kind, folder)
    denoiser, vae = pipeline.transformer.requires_grad_(False), pipeline.vae
    text = FLUX2.encode_prompts(pipeline, ["a dog", "a cat"])["prompt_embeds"].detach()
    pictures = torch.stack([pixels(64, 96), pixels(64, 96).flip(2)])
    chance, t = torch.Generator().manual_seed(2), torch.tensor([250, 731])
    given: dict[str, Any] = {}

    def remember(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        given.update(kwargs)

    with torch.no_grad():
        modes = [vae.encode(one[None]).latent_dist.mode() for one in pictures]
        clean = pipeline._patchify_latents(torch.cat(modes))
        mean = vae.bn.running_mean.view(1, -1, 1, 1)
        std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
        clean = (clean - mean) / std
        noise = torch.randn(clean.shape, generator=chance)
        level = (t / 1000).view(-1, 1, 1, 1)
        packed = pipeline._pack_latents((1 - level) * clean + level * noise)
        ids = pipeline._prepare_latent_ids(clean)
        told = torch.full([2], 3.5) if kind == "dev" else None
        answer = denoiser(
            hidden_states=packed,
            timestep=t / 1000,
            guidance=told,
            encoder_hidden_states=text,
            txt_ids=pipeline._prepare_text_ids(text),
            img_ids=ids,
            return_dict=False,
        )[0]
        unpacked = pipeline._unpack_latents_with_ids(answer, ids)
        unpacked = unpacked if isinstance(unpacked, Tensor) else torch.stack(list(unpacked))
        wanted = ((unpacked - (noise - clean)) ** 2).flatten(1).mean(1)

        hook = denoiser.register_forward_pre_hook(remember, with_kwargs=True)
        unpatchify = pipeline._unpatchify_latents
        latents = torch.stack([FLUX2.encode_image(vae, one).mean for one in pictures])
        batch = Batch(latents, unpatchify(noise), t, {"prompt_embeds": text}, None, 2)
        objective = FLUX2.objective(dict(pipeline.scheduler.config), "auto")
        loss = Loss(FLUX2, denoiser, objective, torch.float32, guidance=3.5)
        whole, losses = loss(batch)
        hook.remove()

    def same(found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6, check_dtype=False)

    same(given["hidden_states"], packed)
    same(given["timestep"], t / 1000)
    same(given["img_ids"].expand(2, -1, -1), ids)
    same(given["txt_ids"].expand(2, -1, -1), pipeline._prepare_text_ids(text))
    assert (given["guidance"] is None) == (kind == "klein")
    if told is not None:
        same(given["guidance"], told)
    patchify = pipeline._patchify_latents
    same(patchify(objective.target(batch.latents, batch.noise, t)), noise - clean)
    same(losses, wanted)
    same(whole, wanted.mean())


def test_gradients_with_checkpointing_and_a_mask_for_each_sample(tiny_flux2: Path) -> None:
    denoiser = stock("klein", tiny_flux2).transformer
    chance = torch.Generator().manual_seed(0)
    noisy = torch.randn(3, 32, 8, 8, generator=chance)
    text = {"prompt_embeds": torch.randn(3, 7, 48, generator=chance)}
    adapter, t = trained(denoiser), torch.tensor([10.0, 500.0, 990.0])

    def gradients(rows: slice) -> list[Tensor]:
        part = {key: value[rows] for key, value in text.items()}
        answer = FLUX2.predict(denoiser, noisy[rows], t[rows], part, 1.0)
        found = torch.autograd.grad((answer**2).sum(), list(adapter.parameters()))
        return [one.clone() for one in found]

    plain = gradients(slice(0, 3))
    alone = [gradients(slice(n, n + 1)) for n in range(3)]
    adapter.enable_gradient_checkpointing()
    again = gradients(slice(0, 3))
    for one, checkpointed, *each in zip(plain, again, *alone, strict=True):
        torch.testing.assert_close(checkpointed, one, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sum(each), one, rtol=1e-3, atol=1e-4)


# --- what is drawn ----------------------------------------------------------------------------


def drawn(pipeline: Any, **options: Any) -> Any:
    settings = {"width": 64, "height": 96, "num_inference_steps": 6, "guidance_scale": 4.0}
    seed = torch.Generator().manual_seed(5)
    return pipeline(prompt="a dog", generator=seed, **{**settings, **options}).images


@KINDS
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_latents_and_pictures_are_those_of_the_stock_pipeline(
    kind: str, guidance: float, folder: Path
) -> None:
    pipeline = stock(kind, folder)
    theirs = drawn(pipeline, output_type="pil", guidance_scale=guidance)[0]
    latents = FLUX2.sample(
        pipeline,
        FLUX2.encode_prompts(pipeline, ["a dog"]),
        FLUX2.encode_negative(pipeline, ""),
        width=64,
        height=96,
        steps=6,
        guidance=guidance,
        generators=[torch.Generator().manual_seed(5)],
    )
    assert latents.shape == (1, 32, 12, 8)
    packed = pipeline._patchify_latents(latents)
    if kind == "dev":
        told = drawn(pipeline, output_type="latent", guidance_scale=guidance)
        torch.testing.assert_close(pipeline._pack_latents(packed), told, rtol=1e-5, atol=1e-6)
    [ours] = FLUX2.decode(pipeline.vae, latents)
    assert ours.size == (64, 96)
    assert np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).max() <= 1


@KINDS
@pytest.mark.parametrize("sampler", ["euler", pytest.param("unipc", marks=pytest.mark.full)])
def test_the_masked_picture_is_that_of_a_callback_that_sets_the_rank(
    kind: str, sampler: str, folder: Path, tmp_path: Path
) -> None:
    """The twin is stock: our file through `load_lora_weights`, its columns cut before each step."""
    pipeline, twin = stock(kind, folder), stock(kind, folder)
    for one in (pipeline, twin):
        one.scheduler = FLUX2.sampler(sampler, one.scheduler.config)
    bare = drawn(pipeline, output_type="np")
    adapter = trained(pipeline.transformer)
    adapter.save(tmp_path / "adapter.safetensors")
    masked = drawn(pipeline, output_type="np")
    twin.load_lora_weights(str(tmp_path), weight_name="adapter.safetensors")
    ups = [m for name, m in twin.transformer.named_modules() if name.endswith("lora_B.default_0")]
    whole = [one.weight.detach().clone() for one in ups]
    assert len(ups) == len(adapter.layers) == 2 * 7 + 2
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
    by_hand = drawn(twin, output_type="np", callback_on_step_end=after)
    assert len(set(seen)) >= 3
    assert np.abs(masked - by_hand).max() < 1e-4
    assert np.abs(masked - bare).max() > 1e-2
    cut(0.0)
    twin.disable_lora()
    assert np.abs(drawn(twin, output_type="np") - bare).max() < 1e-6


@pytest.mark.parametrize("form", ["tlora", "kohya"])
def test_files_load_in_stock_diffusers_and_here(
    form: str, tiny_flux2: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every linear layer of the blocks; without a warning of diffusers' converter."""
    pipeline = stock("klein", tiny_flux2)
    bare = drawn(pipeline, output_type="np")
    adapter = trained(pipeline.transformer, "lora", targets="linear")
    assert len(adapter.layers) == 2 * 12 + 2 * 2
    ours, weights = drawn(pipeline, output_type="np"), adapter.weights()
    adapter.remove()
    linear = {n: m for n, m in pipeline.transformer.named_modules() if isinstance(m, nn.Linear)}
    file = tmp_path / "lora.safetensors"
    write = FORMATS[form].write
    assert write is not None
    write(file, weights, {name: layer.out_features for name, layer in linear.items()})
    assert read_origin(file)[0] == "flux2"
    back = read_adapter(file, linear).layers
    assert back.keys() == weights.layers.keys()
    for name, (down, up) in weights.layers.items():
        torch.testing.assert_close(back[name][1] @ back[name][0], up @ down, rtol=1e-6, atol=1e-6)
    with caplog.at_level("WARNING"):
        pipeline.load_lora_weights(str(tmp_path), weight_name=file.name)
    assert not caplog.records
    theirs = drawn(pipeline, output_type="np")
    assert np.abs(theirs - ours).max() < 1e-4
    assert np.abs(theirs - bare).max() > 1e-2


# --- layers -----------------------------------------------------------------------------------

SIZES = {
    "klein 4B": (None, 3_875_544_576, 5, 20, 3072),
    "klein 9B": (f"{FLUX2.standard_base.rpartition('-')[0]}-9B", 9_078_581_248, 8, 24, 4096),
    "dev": ("black-forest-labs/FLUX.2-dev", 32_223_281_152, 8, 48, 6144),
}


@pytest.mark.parametrize("size", SIZES)
def test_the_published_sizes(size: str) -> None:
    base, parameters, double, single, width = SIZES[size]
    denoiser = meta_denoiser("flux2", base)
    assert sum(p.numel() for p in denoiser.parameters()) == parameters
    adapter = attach(denoiser, "vanilla_tlora", 32, 1)
    names = list(adapter.layers)
    assert sum(name.startswith("transformer_blocks.") for name in names) == 7 * double
    assert sum(name.startswith("single_transformer_blocks.") for name in names) == single
    trains = sum(p.numel() for p in adapter.parameters())
    assert trains == 32 * width * (7 * double * 2 + single * (1 + 9))  # 3 of qkv, 2 x 3 of the MLP
    left = {name for name, _ in denoiser.named_modules() if name.endswith((".attn", "attn2"))}
    left -= {name.partition(".attn.")[0] + ".attn" for name in names}
    assert not left, "no attention block is left out"


def test_the_text_encoders_have_their_true_sizes() -> None:
    from transformers import (
        Mistral3Config,
        Mistral3ForConditionalGeneration,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    shared = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    qwen = {**shared, "num_hidden_layers": 36, "vocab_size": 151_936}
    small = Qwen3Config(hidden_size=2560, intermediate_size=9728, tie_word_embeddings=True, **qwen)
    middle = Qwen3Config(
        hidden_size=4096, intermediate_size=12_288, tie_word_embeddings=False, **qwen
    )
    text = {
        "model_type": "mistral",
        "hidden_size": 5120,
        "num_hidden_layers": 40,
        "intermediate_size": 32_768,
        "vocab_size": 131_072,
        **shared,
    }
    vision = {"model_type": "pixtral", "image_size": 1540, "patch_size": 14}
    large = Mistral3Config(text_config=text, vision_config=vision, tie_word_embeddings=False)
    with torch.device("meta"):
        models = [
            Qwen3ForCausalLM(small),
            Qwen3ForCausalLM(middle),
            Mistral3ForConditionalGeneration(large),
        ]
    counted = [sum({id(p): p.numel() for p in m.parameters()}.values()) for m in models]
    stated = [FLUX2.standard_text_parameters, MIDDLE.text_parameters, LARGE.text_parameters]
    assert counted == stated


@pytest.mark.parametrize("t", [0.0, 125.0, 500.0, 731.0, 1000.0])
def test_the_mask_follows_the_timestep_that_the_model_is_told(t: float, tiny_flux2: Path) -> None:
    """In fp32 exactly t; in bf16 what rounding before and after the division leaves."""
    denoiser = stock("klein", tiny_flux2).transformer
    adapter = attach(denoiser, "vanilla_tlora", 32, 1, schedule=RankSchedule(32, 1))
    for dtype in (torch.float32, torch.bfloat16):
        told = torch.full((1,), t).to(dtype) / 1000  # as both pipelines do
        adapter.call.set_timestep(told, torch.device("cpu"))
        exact = t if dtype == torch.float32 else round(float(told.double() * 1000), 4)
        rank = math.floor(31 * (1000 - exact) / 1000) + 1
        mask = adapter.call.mask(1, torch.float32)
        assert int(mask.sum()) == rank
        assert abs(exact - t) <= 4  # bf16 has eight bits


def test_names_tell_its_files_from_those_of_flux() -> None:
    flux, flux2 = FAMILIES["flux"], FAMILIES["flux2"]
    for kind, other in ((flux, flux2), (flux2, flux)):
        layers = [n for n, m in meta_denoiser(kind.name).named_modules() if hasattr(m, "weight")]
        blocks = [name for name in layers if "blocks." in name]
        theirs = [alias for alias, _ in kind.original_names(layers) if "blocks_" in alias]
        for names in (blocks, [name.replace(".", "_") for name in blocks], theirs):
            assert kind.knows(names)
        for names in (blocks, [name.replace(".", "_") for name in blocks]):
            assert not other.knows(names)


# --- bases ------------------------------------------------------------------------------------


@KINDS
def test_a_base_is_found_and_run_by_its_own_pipeline(kind: str, folder: Path) -> None:
    base = Base(str(folder))
    assert family_of_base(base) == "flux2"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pipeline = load_pipeline(FLUX2, base, parts=("denoiser",))
    assert type(pipeline) is STOCK[kind]
    with pytest.raises(UserError) as refused:
        load_pipeline(FAMILIES["flux"], base, parts=())
    assert f"is a {STOCK[kind].__name__}, not a flux model" in refused.value.what
    assert refused.value.do == "set family: flux2, or change the base"


def test_a_base_of_flux_is_refused(tiny_flux: Path) -> None:
    with pytest.raises(UserError) as refused:
        load_pipeline(FLUX2, Base(str(tiny_flux)), parts=())
    assert "is a FluxPipeline, not a flux2 model" in refused.value.what
    assert "family: flux," in refused.value.do


def test_a_distilled_base_is_said_and_draws_without_guidance(
    tiny_flux2: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_flux2, tmp_path / "base")
    file = tmp_path / "base" / "model_index.json"
    index = json.loads(file.read_text())
    file.write_text(json.dumps({**index, "is_distilled": True}))
    assert not list(FLUX2.training_notes(index, "base"))
    pipeline = load_pipeline(FLUX2, Base(str(tmp_path / "base")))
    [note] = FLUX2.training_notes(pipeline.config, "base")
    assert note.startswith("is distilled to draw in a few steps")
    assert FLUX2.encode_negative(pipeline, "") is None
    with pytest.raises(UserError, match="takes no negative prompt"):
        FLUX2.encode_negative(pipeline, "blurry")


def test_a_negative_prompt_counts_on_klein_and_is_refused_on_dev(
    tiny_flux2: Path, tiny_flux2_dev: Path
) -> None:
    klein, dev = (load_pipeline(FLUX2, Base(str(one))) for one in (tiny_flux2, tiny_flux2_dev))
    with pytest.raises(UserError, match="takes no negative prompt"):
        FLUX2.encode_negative(dev, "blurry")
    klein.set_progress_bar_config(disable=True)
    words = FLUX2.encode_prompts(klein, ["a dog"])
    empty, blurry = (
        FLUX2.sample(
            klein,
            words,
            FLUX2.encode_negative(klein, text),
            width=64,
            height=64,
            steps=2,
            guidance=4.0,
            generators=[torch.Generator().manual_seed(0)],
        )
        for text in ("", "blurry")
    )
    assert (empty - blurry).abs().max() > 1e-2


@KINDS
def test_what_is_cut_off_of_a_prompt(kind: str, folder: Path) -> None:
    """The last token that is said to be read changes the text's states; the next doesn't."""
    pipeline = load_pipeline(FLUX2, Base(str(folder)), parts=("text",))
    room = FLUX2.text_room(pipeline.tokenizer, 512)
    letters = [
        "xz" * (room // 2) + "x" * (room % 2),
        "xz" * (room // 2) + "y" * (room % 2) if room % 2 else "xz" * (room // 2 - 1) + "xy",
        "xz" * (room // 2) + "x" * (room % 2) + "y",
    ]
    assert not list(cuts(FLUX2, pipeline, letters[0]))
    [cut] = cuts(FLUX2, pipeline, letters[2])
    assert (cut.limit, cut.tokens, cut.rest) == (room, room + 1, "y")
    with torch.no_grad():
        whole, other, longer = (
            FLUX2.encode_prompts(pipeline, [text])["prompt_embeds"] for text in letters
        )
    assert torch.equal(longer, FLUX2.encode_prompts(pipeline, [letters[2] + "q"])["prompt_embeds"])
    assert not torch.equal(whole, other)


def test_a_tokenizer_without_a_chat_template_is_told(tiny_flux2: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_flux2, tmp_path / "base")
    (tmp_path / "base" / "tokenizer" / "chat_template.jinja").unlink()
    pipeline = load_pipeline(FLUX2, Base(str(tmp_path / "base")), parts=("text",))
    with pytest.raises(UserError, match="has no chat template"):
        list(cuts(FLUX2, pipeline, "a dog"))


def test_a_fixed_shift_draws_by_euler_alone() -> None:
    config = {"use_dynamic_shifting": False, "shift": 3.0}
    assert FLUX2.sampler("euler", config).config["shift"] == 3.0
    with pytest.raises(UserError, match="fixed shift"):
        FLUX2.sampler("unipc", config)


@pytest.mark.parametrize("method", ["textual_inversion", "custom_diffusion"])
def test_no_word_is_learned(method: str, tiny_flux2: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cut a word into other tokens behind a space"):
        Recipe.model_validate(recipe_values(tiny_flux2, tmp_path, adapter={"method": method}))
    with pytest.raises(UserError, match=r"learns a word|keys and values of cross-attention"):
        attach(stock("klein", tiny_flux2), method)


# --- through the command line -----------------------------------------------------------------


@pytest.mark.full
@KINDS
def test_a_run_learns_and_resumes_to_the_same_bits(kind: str, folder: Path, tmp_path: Path) -> None:
    changes = {
        "adapter": {"method": "vanilla_tlora", "rank": 4, "targets": "linear"},
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


@pytest.mark.full
def test_the_command_line_says_that_a_base_is_distilled(tiny_flux2: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_flux2, tmp_path / "tiny-flux2")
    file = tmp_path / "tiny-flux2" / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "is_distilled": True}))
    written = write_recipe(tmp_path / "tiny-flux2", tmp_path, train__steps=2)
    for command in (("validate", written), ("train", "--config", written)):
        done = tlora(*command)
        said = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == 0, said
        assert "is distilled to draw in a few steps" in said
    adapter = tmp_path / "run" / "adapter.safetensors"
    done = tlora("sample", "--adapter", adapter, "--prompt", "a V*", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "distilled" not in done.stdout + done.stderr
