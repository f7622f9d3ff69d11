"""Stable Diffusion 3: what is its own. The rest is in `test_matrix.py`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from family_cases import load, trained
from safetensors.torch import save_file
from torch import Tensor, nn
from training_runs import recipe_values, tlora, write_recipe

from tlora_cli import UserError
from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.families.sd3 import BASE, IN_BLOCK, LARGE, SD3, TURBO
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.families.text_length import check_lengths, cuts
from tlora_cli.formats import read_adapter, read_origin
from tlora_cli.recipe.models import Recipe
from tlora_cli.tools.preflight.memory.plan import plan_memory
from tlora_cli.training.batch import Batch
from tlora_cli.training.step import Loss


@pytest.fixture
def without_t5(tiny_sd3: Path, tmp_path: Path) -> Path:
    """Return the folder of the same base without T5, as some save memory."""
    folder = tmp_path / "tiny-sd3"
    shutil.copytree(tiny_sd3, folder)
    file = folder / "model_index.json"
    index = json.loads(file.read_text())
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / part)
        index[part] = [None, None]
    file.write_text(json.dumps(index))
    return folder


def stock(folder: Path) -> Any:
    """Return diffusers' pipeline, which must be told that a base is without T5."""
    there = (folder / "text_encoder_3").exists()
    more = {} if there else {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, **more)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("base", ["tiny_sd3", "without_t5"])
def test_a_training_step_is_that_of_diffusers(base: str, request: pytest.FixtureRequest) -> None:
    """Its formulas are those of `train_dreambooth_lora_sd3.py`, without preconditioning."""
    pipeline = stock(request.getfixturevalue(base))
    denoiser, vae = pipeline.transformer.requires_grad_(False), pipeline.vae
    chance, t = torch.Generator().manual_seed(2), torch.tensor([250, 731])
    pictures = torch.rand(2, 3, 64, 96, generator=chance) * 2 - 1
    prompts, given = ["a dog", "a photo of a cat in the snow, at night"], {}

    def remember(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        given.update(kwargs)

    with torch.no_grad():
        embeds, _, pooled, _ = pipeline.encode_prompt(prompts, prompts, prompts)
        clean = torch.cat([vae.encode(one[None]).latent_dist.mode() for one in pictures])
        clean = (clean - vae.config.shift_factor) * vae.config.scaling_factor
        noise = torch.randn(clean.shape, generator=chance)
        level = (t / 1000).view(-1, 1, 1, 1)
        noisy = (1 - level) * clean + level * noise
        answer = denoiser(
            hidden_states=noisy,
            timestep=t,
            encoder_hidden_states=embeds,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        wanted = ((answer - (noise - clean)) ** 2).flatten(1).mean(1)

        denoiser.register_forward_pre_hook(remember, with_kwargs=True)
        latents = torch.stack([SD3.encode_image(vae, one).mean for one in pictures])
        text = SD3.encode_prompts(pipeline, prompts)
        assert embeds.shape == (2, 77 + 256, 96)
        batch = Batch(latents, noise, t, text, None, 2)
        objective = SD3.objective(dict(pipeline.scheduler.config), "auto")
        whole, losses = Loss(SD3, denoiser, objective, torch.float32)(batch)

    def same(found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6, check_dtype=False)

    same(given["hidden_states"], noisy)
    same(given["encoder_hidden_states"], embeds)
    same(given["pooled_projections"], pooled)
    same(given["timestep"], t)
    same(losses, wanted)
    same(whole, wanted.mean())


def test_what_each_encoder_cuts_off_is_told(tiny_sd3: Path) -> None:
    pipeline = load_pipeline(SD3, Base(str(tiny_sd3)), parts=("text",))
    found = {cut.encoder: cut for cut in cuts(SD3, pipeline, "xy" * 150)}
    assert {name: cut.limit for name, cut in found.items()} == {
        "text_encoder": 75,
        "text_encoder_2": 75,
        "text_encoder_3": 255,
    }
    assert [cut.encoder for cut in found.values() if cut.whole] == ["text_encoder_3"]


@pytest.mark.parametrize("base", [BASE, LARGE, TURBO])
def test_a_distilled_base_is_known_by_its_name(base: str) -> None:
    notes = list(SD3.training_notes({}, base))
    assert bool(notes) == (base == TURBO)
    assert SD3.licenses[base].name == "stabilityai-ai-community"


def test_without_t5_pictures_are_those_of_the_stock_pipeline(without_t5: Path) -> None:
    theirs = stock(without_t5)(
        ["a dog", "a cat in the snow"],
        negative_prompt=["blurry"] * 2,
        generator=[torch.Generator().manual_seed(seed) for seed in (5, 6)],
        guidance_scale=4.0,
        width=64,
        height=96,
        num_inference_steps=4,
        output_type="latent",
    ).images
    # As a run does it: texts first, with no transformer in memory, and then without the encoders.
    encoders = load_pipeline(SD3, Base(str(without_t5)), parts=("text",))
    with torch.no_grad():
        text = SD3.encode_prompts(encoders, ["a dog", "a cat in the snow"])
        negative = SD3.encode_negative(encoders, "blurry")
    assert negative is not None
    ours = SD3.sample(
        load_pipeline(SD3, Base(str(without_t5)), parts=("vae", "denoiser")),
        text,
        {key: torch.cat([value] * 2) for key, value in negative.items()},
        width=64,
        height=96,
        steps=4,
        guidance=4.0,
        generators=[torch.Generator().manual_seed(seed) for seed in (5, 6)],
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_without_t5_the_plan_has_less_for_texts(
    tiny_sd3: Path, without_t5: Path, tmp_path: Path
) -> None:
    whole, less = (
        plan_memory(Recipe.model_validate(recipe_values(base, tmp_path))).phases[0].total
        for base in (tiny_sd3, without_t5)
    )
    t5 = sum(one.numel() for one in stock(tiny_sd3).text_encoder_3.parameters())
    assert whole - less == 4 * t5


@pytest.mark.full
@pytest.mark.parametrize("word_lr", [None, 0.1])
def test_without_t5_a_base_is_checked_trained_and_drawn(
    without_t5: Path, tmp_path: Path, word_lr: float | None
) -> None:
    train = {"steps": 2, "preview": {"prompts": ["a {placeholder} dog"], "every": 2}}
    changes = {f"train__{key}": value for key, value in {**train, "word_lr": word_lr}.items()}
    recipe = write_recipe(without_t5, tmp_path, **changes)
    done = tlora("validate", recipe)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tokenizer_3" not in done.stdout + done.stderr
    done = tlora("train", "--config", recipe)
    assert done.returncode == 0, done.stderr
    done = tlora(
        "sample", "--adapter", tmp_path / "run", "--prompt", "a sks dog", "--steps", 2,
        "--output", tmp_path / "drawn",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "drawn").glob("*.png"))
    words = read_adapter(tmp_path / "run/adapter.safetensors", ()).words
    assert set(words) == ({"text_encoder", "text_encoder_2"} if word_lr else set())


def test_without_t5_the_clips_limit_is_that_of_the_concept(without_t5: Path) -> None:
    pipeline = load_pipeline(SD3, Base(str(without_t5)), parts=("text",))
    with pytest.raises(UserError, match="'zq' stands behind the 75 tokens"):
        check_lengths(SD3, pipeline, ["xy" * 150 + " zq"], ["zq"])


def test_what_a_base_may_not_lack_is_refused(without_t5: Path) -> None:
    """A CLIP; and a T5 of which the index says that it is there."""
    file = without_t5 / "model_index.json"
    index = json.loads(file.read_text())
    file.write_text(json.dumps({**index, "text_encoder_2": [None, None]}))
    with pytest.raises(UserError, match="has no text_encoder_2"):
        load_pipeline(SD3, Base(str(without_t5)), parts=("text",))
    file.write_text(json.dumps({**index, "text_encoder_3": ["transformers", "T5EncoderModel"]}))
    with pytest.raises(UserError, match="has no tokenizer_3"):
        load_pipeline(SD3, Base(str(without_t5)), parts=("text",))


def test_a_lora_in_the_original_names_is_read(tiny_sd3: Path, tmp_path: Path) -> None:
    """Queries, keys and values are one layer there, as in ComfyUI's and sd-scripts' files."""
    denoiser = load(StableDiffusion3Pipeline, tiny_sd3).transformer
    weights = trained(denoiser, "lora", targets="linear").weights()
    linear = {n: m for n, m in denoiser.named_modules() if isinstance(m, nn.Linear)}
    tensors: dict[str, Tensor] = {}
    named: set[str] = set()
    for number in range(3):
        for alias, members in IN_BLOCK.items():
            layers = [f"transformer_blocks.{number}.{one}" for one in members]
            if all(layer in weights.layers for layer in layers):
                named |= set(layers)
                downs, ups = zip(*(weights.layers[layer] for layer in layers), strict=True)
                stem = f"lora_unet_joint_blocks_{number}_{alias}"
                tensors[f"{stem}.lora_down.weight"] = torch.cat(downs)
                tensors[f"{stem}.lora_up.weight"] = torch.block_diag(*ups)
                tensors[f"{stem}.alpha"] = torch.tensor(float(sum(map(len, downs))))
    assert {n for n in weights.layers if "norm1_context" not in n} == named
    file = tmp_path / "lora.safetensors"
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)
    assert read_origin(file)[0] == "sd3"
    back = read_adapter(file, linear).layers
    assert back.keys() == named
    for name in named:
        (down, up), (own_down, own_up) = weights.layers[name], back[name]
        torch.testing.assert_close(own_up @ own_down, up @ down, rtol=1e-6, atol=1e-6)


def test_files_of_the_large_model_are_not_those_of_others() -> None:
    large = list(SD3.target_layers(meta_denoiser("sd3", LARGE)))
    assert SD3.knows(large)
    assert not FAMILIES["flux"].knows(large)
    assert not FAMILIES["flux2"].knows(large)


def test_on_a_card_too_small_for_its_text_encoders_blocks_take_turns(
    tiny_sd3: Path, tmp_path: Path
) -> None:
    small = {"train__memory": "12gb", "train__device": "auto"}
    assert Recipe.model_validate(recipe_values(tiny_sd3, tmp_path, **small)).train.offload


def test_the_text_encoders_have_their_true_sizes() -> None:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    small = CLIPTextConfig(hidden_size=768, intermediate_size=3072, projection_dim=768)
    large = CLIPTextConfig(
        hidden_size=1280,
        intermediate_size=5120,
        projection_dim=1280,
        num_hidden_layers=32,
        num_attention_heads=20,
    )
    t5 = T5Config(
        vocab_size=32_128,
        d_model=4096,
        d_kv=64,
        d_ff=10_240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
    )
    with torch.device("meta"):
        models = [
            CLIPTextModelWithProjection(small),
            CLIPTextModelWithProjection(large),
            T5EncoderModel(t5),
        ]
    counted = sum({id(p): p.numel() for m in models for p in m.parameters()}.values())
    assert counted == SD3.standard_text_parameters
