"""Z-Image: what is its own. The rest is in `test_matrix.py`."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ZImagePipeline
from family_cases import load, trained
from safetensors.torch import save_file
from torch import Tensor, nn
from training_runs import recipe_values

from tlora_cli import UserError, attach
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.families.text_length import cuts
from tlora_cli.families.z_image import BASE, TURBO, Z_IMAGE
from tlora_cli.formats import read_adapter, read_origin
from tlora_cli.foundation.offloading import waiting_parameters
from tlora_cli.recipe.models import Recipe
from tlora_cli.tools.preflight.lesson_checks import drawing_cost
from tlora_cli.training.batch import Batch
from tlora_cli.training.step import Loss


def test_a_training_step_is_that_of_diffusers(tiny_z_image: Path) -> None:
    """Its formulas are those of `train_dreambooth_lora_z_image.py`, on the same numbers."""
    pipeline = load(ZImagePipeline, tiny_z_image)
    denoiser, vae = pipeline.transformer.requires_grad_(False), pipeline.vae
    chance, t = torch.Generator().manual_seed(2), torch.tensor([250, 731])
    pictures = torch.rand(2, 3, 64, 96, generator=chance) * 2 - 1
    prompts, given = ["a dog", "a photo of a cat in the snow, at night"], []

    def remember(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        given.append((args, kwargs))

    with torch.no_grad():
        texts, _ = pipeline.encode_prompt(list(prompts))
        assert len(texts[0]) != len(texts[1])
        clean = torch.cat([vae.encode(one[None]).latent_dist.mode() for one in pictures])
        clean = (clean - vae.config.shift_factor) * vae.config.scaling_factor
        noise = torch.randn(clean.shape, generator=chance)
        level = (t / 1000).view(-1, 1, 1, 1)
        noisy = (1 - level) * clean + level * noise
        framed = list(noisy.unsqueeze(2).unbind(dim=0))
        told = (1000 - t) / 1000
        answers = denoiser(framed, told, texts, return_dict=False)[0]
        wanted = -torch.stack(answers, dim=0).squeeze(2)
        wanted = ((wanted - (noise - clean)) ** 2).flatten(1).mean(1)

        denoiser.register_forward_pre_hook(remember, with_kwargs=True)
        latents = torch.stack([Z_IMAGE.encode_image(vae, one).mean for one in pictures])
        text = Z_IMAGE.encode_prompts(pipeline, prompts)
        assert text["prompt_embeds"].shape == (2, 512, 16)
        batch = Batch(latents, noise, t, text, None, 2)
        objective = Z_IMAGE.objective(dict(pipeline.scheduler.config), "auto")
        whole, losses = Loss(Z_IMAGE, denoiser, objective, torch.float32)(batch)

    def same(found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6, check_dtype=False)

    [((own_latents, own_t, own_texts), _)] = given
    for ours, theirs in ((own_latents, framed), (own_texts, texts)):
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    same(own_t, told)
    same(losses, wanted)
    same(whole, wanted.mean())


def test_what_is_cut_off_of_a_prompt(tiny_z_image: Path) -> None:
    """The last token that is said to be read changes the text's states; the next doesn't."""
    pipeline = load_pipeline(Z_IMAGE, Base(str(tiny_z_image)), parts=("text",))
    room = Z_IMAGE.text_room(pipeline.tokenizer, 512)
    start = "xz" * ((room - 1) // 2) + "x" * ((room - 1) % 2)
    assert not list(cuts(Z_IMAGE, pipeline, start + "y"))
    [cut] = cuts(Z_IMAGE, pipeline, start + "yq")
    assert (cut.limit, cut.tokens, cut.rest) == (room, room + 1, "q")
    with torch.no_grad():
        found = [
            Z_IMAGE.encode_prompts(pipeline, [start + end])["prompt_embeds"]
            for end in ("yq", "yk", "wq")
        ]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("base", [TURBO, "/models/my-z-image_turbo", BASE, "turbo/Z-Image"])
def test_a_distilled_base_is_known_by_its_name(base: str) -> None:
    notes = list(Z_IMAGE.training_notes({}, base))
    assert bool(notes) == ("turbo" in base.rpartition("/")[2].lower())
    assert all(note.startswith("is distilled to draw in a few steps") for note in notes)


def test_guidance_above_0_takes_two_answers(tiny_z_image: Path, tmp_path: Path) -> None:
    denoiser = meta_denoiser("z_image", str(tiny_z_image))
    assert [Z_IMAGE.guidance_calls(denoiser, g) for g in (0.0, 0.5, 4.0)] == [1, 2, 2]
    costs = [
        drawing_cost(
            Recipe.model_validate(recipe_values(tiny_z_image, tmp_path, sampling__guidance=g)), 100
        )
        for g in (0.0, 0.5)
    ]
    assert costs[1] == 2 * costs[0] > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train__execution": "cuda_graph"}, "texts of Z-Image have lengths of their own"),
        ({"sampling__scheduler": "dpmpp_2m"}, "use one of default, euler, unipc"),
        ({"adapter__method": "textual_inversion"}, "cut"),
        ({"train__resolution": 72}, "must be a multiple of 16 for z_image"),
    ],
)
def test_what_it_does_not_take_is_told(
    change: dict[str, Any], said: str, tiny_z_image: Path, tmp_path: Path
) -> None:
    recipe = {"adapter": {}, **change}
    with pytest.raises(ValueError, match=said):
        Recipe.model_validate(recipe_values(tiny_z_image, tmp_path, **recipe))


def test_a_base_that_sees_pictures_is_refused(tiny_z_image: Path, tmp_path: Path) -> None:

    shutil.copytree(tiny_z_image, tmp_path / "base")
    file = tmp_path / "base" / "transformer" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "siglip_feat_dim": 32}))
    with pytest.raises(UserError, match=r"siglip_feat_dim is 32, not absent"):
        load_pipeline(Z_IMAGE, Base(str(tmp_path / "base")), parts=("denoiser",))


def test_a_lora_in_the_original_names_is_read(tiny_z_image: Path, tmp_path: Path) -> None:
    """Queries, keys and values are one layer there, as ComfyUI's files have them."""
    denoiser = load(ZImagePipeline, tiny_z_image).transformer
    weights = trained(denoiser, "lora", targets="attention").weights()
    linear = {n: m for n, m in denoiser.named_modules() if isinstance(m, nn.Linear)}
    tensors = {}
    for block in {name.partition(".attention.")[0] for name in weights.layers}:
        downs, ups = zip(
            *(weights.layers[f"{block}.attention.to_{part}"] for part in "qkv"), strict=True
        )
        stem = f"diffusion_model.{block}.attention"
        out = weights.layers[f"{block}.attention.to_out.0"]
        tensors[f"{stem}.qkv.lora_A.weight"] = torch.cat(downs)
        tensors[f"{stem}.qkv.lora_B.weight"] = torch.block_diag(*ups)
        tensors[f"{stem}.out.lora_A.weight"], tensors[f"{stem}.out.lora_B.weight"] = out
    file = tmp_path / "lora.safetensors"
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)
    assert read_origin(file)[0] == "z_image"
    back = read_adapter(file, linear).layers
    assert back.keys() == weights.layers.keys()
    for name, (down, up) in weights.layers.items():
        torch.testing.assert_close(back[name][1] @ back[name][0], up @ down, rtol=1e-6, atol=1e-6)


def test_files_of_lumina_2_and_of_language_models_are_not_its_own() -> None:
    assert not Z_IMAGE.knows(["layers.0.attn.to_q", "noise_refiner.0.attn.to_q"])
    assert not Z_IMAGE.knows(["layers.0.self_attn.q_proj"])
    assert not Z_IMAGE.knows(["layers_3_adaLN_modulation_1"])


def test_text_layers_of_the_encoder_have_their_true_size() -> None:
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151_936,
    )
    with torch.device("meta"):
        model = Qwen3Model(config)
    assert sum(p.numel() for p in model.parameters()) == Z_IMAGE.standard_text_parameters
    assert waiting_parameters(model) == Z_IMAGE.standard_text_waiting


def test_an_adapter_holds_in_the_pipeline_of_the_whole_picture(tiny_z_image: Path) -> None:
    """A list of latents, as every pipeline of it gives, has a device and a number format."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoiser = load(ZImagePipeline, tiny_z_image).transformer
        adapter = attach(denoiser, "vanilla_tlora", 8, 2)
        latents = [torch.randn(16, 1, 8, 8)] * 2
        denoiser(latents, torch.tensor([0.0, 1.0]), [torch.randn(5, 16)] * 2, return_dict=False)
    assert adapter.call.active_rank.tolist() == [2, 8]
