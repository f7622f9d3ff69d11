"""Krea 2 against diffusers: a training step, guidance, names of other tools, distilled bases."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import Krea2Transformer2DModel
from packed_cases import CASES, drawn, pixels, trained
from safetensors.torch import save_file
from torch import Tensor, nn

from tlora_cli import UserError
from tlora_cli.families.krea2 import KREA2
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.families.text_rows import joined
from tlora_cli.formats import read_adapter
from tlora_cli.training.batch import Batch
from tlora_cli.training.step import Loss

CASE = CASES["krea2"]


def test_a_training_step_is_that_of_diffusers(tiny_krea2: Path) -> None:
    """Its formulas are those of `train_dreambooth_lora_krea2.py`, on the same numbers."""
    pipeline = CASE.stock(tiny_krea2)
    denoiser, vae = pipeline.transformer.requires_grad_(False), pipeline.vae
    prompts = ["a dog", "a cat in the snow"]
    pictures = torch.stack([pixels(64, 96), pixels(64, 96).flip(2)])
    chance, t = torch.Generator().manual_seed(2), torch.tensor([250, 731])
    given: dict[str, Any] = {}

    def remember(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        given.update(kwargs)

    with torch.no_grad():
        text, mask = pipeline.encode_prompt(prompts)
        clean = vae.encode(pictures.unsqueeze(2)).latent_dist.mode()
        mean, std = (
            torch.tensor(vae.config[key]).view(1, -1, 1, 1, 1)
            for key in ("latents_mean", "latents_std")
        )
        clean = (clean - mean) * (1 / std)
        noise = torch.randn(clean.shape, generator=chance)
        level = (t / 1000).view(-1, 1, 1, 1, 1)
        packed = pipeline._pack_latents(
            ((1 - level) * clean + level * noise).permute(0, 2, 1, 3, 4), 2, 16, 12, 8
        )
        places = pipeline.prepare_position_ids(text.shape[1], 6, 4, text.device)
        answer = denoiser(
            hidden_states=packed,
            encoder_hidden_states=text,
            timestep=t / 1000,
            position_ids=places,
            encoder_attention_mask=mask,
            return_dict=False,
        )[0]
        wanted = ((pipeline._unpack_latents(answer, 96, 64) - (noise - clean)) ** 2).flatten(1)

        hook = denoiser.register_forward_pre_hook(remember, with_kwargs=True)
        latents = torch.stack([KREA2.encode_image(vae, one).mean for one in pictures])
        alone = [KREA2.encode_prompts(pipeline, [one]) for one in prompts]
        batch = Batch(latents, noise[:, :, 0], t, joined(alone), None, 2)
        objective = KREA2.objective(dict(pipeline.scheduler.config), "auto")
        whole, losses = Loss(KREA2, denoiser, objective, torch.float32)(batch)
        hook.remove()

    def same(ours: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=2e-6, check_dtype=False)

    assert text.shape == (2, 512, 12, 16)
    assert 0 < mask.sum() < mask.numel()
    same(given["hidden_states"], packed)
    same(given["timestep"], t / 1000)
    same(given["position_ids"], places)
    same(given["encoder_attention_mask"], mask)
    same(given["encoder_hidden_states"], text)
    same(objective.target(batch.latents, batch.noise, t), (noise - clean)[:, :, 0])
    same(losses, wanted.mean(1))
    same(whole, wanted.mean())


def test_a_step_of_drawing_takes_two_answers_if_it_is_guided_at_all() -> None:
    """Guidance g is that of c + g (c - u): 0.5 here is 1.5 elsewhere."""
    assert [KREA2.guidance_calls(None, guidance) for guidance in (0.0, 0.5, 4.5)] == [1, 2, 2]


def test_the_rows_of_the_left_out_attention_are_no_samples(tiny_krea2: Path) -> None:
    """Two of the four see each token's twelve layers of text as a sequence of their own."""
    pipeline = CASE.stock(tiny_krea2)
    shapes: dict[str, torch.Size] = {}

    def remember(name: str) -> Any:
        def hook(module: Any, args: Any) -> None:
            shapes[name] = args[0].shape

        return hook

    fusion = pipeline.transformer.text_fusion
    for name, module in fusion.named_modules():
        if name.endswith(".attn"):
            module.register_forward_pre_hook(remember(name))
    with torch.no_grad():
        text = KREA2.encode_prompts(pipeline, ["a dog"])
        KREA2.predict(pipeline.transformer, torch.zeros(1, 16, 4, 4), torch.zeros(1), text, 0.0)
    assert shapes["layerwise_blocks.0.attn"] == shapes["layerwise_blocks.1.attn"] == (512, 12, 16)
    assert shapes["refiner_blocks.0.attn"] == shapes["refiner_blocks.1.attn"] == (1, 512, 16)


# --- names of other tools ---------------------------------------------------------------------

ATTENTION = {"to_q": "wq", "to_k": "wk", "to_v": "wv", "to_out.0": "wo", "to_gate": "gate"}


@pytest.mark.full
def test_loras_in_the_original_names_are_read(tiny_krea2: Path, tmp_path: Path) -> None:
    """As Krea's own trainer and ComfyUI call them, and as diffusers' converter reads them."""
    pipeline = CASE.stock(tiny_krea2)
    adapter = trained(pipeline.transformer, "lora", targets="linear")
    ours, weights = drawn(pipeline, **CASE.plain), adapter.weights()
    adapter.remove()
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in weights.layers.items():
        _, number, kind, layer = name.split(".", 3)
        theirs = f"attn.{ATTENTION[layer]}" if kind == "attn" else f"mlp.{layer}"
        place = f"diffusion_model.blocks.{number}.{theirs}"
        tensors[f"{place}.lora_A.weight"] = down.contiguous()
        tensors[f"{place}.lora_B.weight"] = up.contiguous()
    save_file(tensors, tmp_path / "lora.safetensors")
    linear = {n: m for n, m in pipeline.transformer.named_modules() if isinstance(m, nn.Linear)}
    found = read_adapter(tmp_path / "lora.safetensors", linear)
    assert found.family == "krea2"
    assert found.layers.keys() == weights.layers.keys()
    for name, (down, up) in weights.layers.items():
        product = found.layers[name][1] @ found.layers[name][0]
        torch.testing.assert_close(product, up @ down, rtol=1e-6, atol=1e-6)
    pipeline.load_lora_weights(str(tmp_path), weight_name="lora.safetensors")
    assert np.abs(drawn(pipeline, **CASE.plain) - ours).max() < 1e-4


BEFORE = {
    "img_in.": "first.",
    "time_embed.linear_1.": "tmlp.0.",
    "time_embed.linear_2.": "tmlp.2.",
    "time_mod_proj.": "tproj.1.",
    "txt_in.norm.weight": "txtmlp.0.scale",
    "txt_in.linear_1.": "txtmlp.1.",
    "txt_in.linear_2.": "txtmlp.3.",
    "text_fusion.": "txtfusion.",
    "transformer_blocks.": "blocks.",
    "final_layer.linear.": "last.linear.",
    "final_layer.norm.weight": "last.norm.scale",
    "final_layer.scale_shift_table": "last.modulation.lin",
}
WITHIN = {
    **{f".attn.{ours}.": f".attn.{theirs}." for ours, theirs in ATTENTION.items()},
    ".attn.norm_q.weight": ".attn.qknorm.qnorm.scale",
    ".attn.norm_k.weight": ".attn.qknorm.knorm.scale",
    ".ff.": ".mlp.",
    ".norm1.weight": ".prenorm.scale",
    ".norm2.weight": ".postnorm.scale",
    ".scale_shift_table": ".mod.lin",
}


def test_a_single_file_is_the_folder(tiny_krea2: Path, tmp_path: Path) -> None:
    """Krea's own names, as `convert_krea2_transformer_checkpoint_to_diffusers` reads them."""
    transformer = Krea2Transformer2DModel.from_pretrained(tiny_krea2, subfolder="transformer")
    state = transformer.state_dict()
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        start = next(one for one in BEFORE if name.startswith(one))
        theirs = BEFORE[start] + name[len(start) :]
        for ours, other in WITHIN.items():
            theirs = theirs.replace(ours, other)
        found[theirs] = value.flatten() if theirs.endswith("mod.lin") else value
    save_file(found, tmp_path / "one.safetensors")
    base = Base(str(tmp_path / "one.safetensors"), config=str(tiny_krea2))
    loaded = load_pipeline(KREA2, base, parts=("denoiser",)).transformer.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


# --- distilled bases --------------------------------------------------------------------------


def test_a_distilled_base_is_said_and_draws_without_guidance(
    tiny_krea2: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_krea2, tmp_path / "base")
    file = tmp_path / "base" / "model_index.json"
    index = json.loads(file.read_text())
    assert not list(KREA2.training_notes(index, "base"))
    file.write_text(json.dumps({**index, "is_distilled": True}))
    pipeline = load_pipeline(KREA2, Base(str(tmp_path / "base")))
    pipeline.set_progress_bar_config(disable=True)
    [note] = KREA2.training_notes(pipeline.config, "base")
    assert note.startswith("is distilled to draw in a few steps")
    assert KREA2.encode_negative(pipeline, "") is None
    with pytest.raises(UserError, match="takes no negative prompt"):
        KREA2.encode_negative(pipeline, "blurry")
    settings = {"width": 64, "height": 64}
    latents = KREA2.sample(
        pipeline,
        KREA2.encode_prompts(pipeline, ["a dog"]),
        None,
        steps=2,
        guidance=4.5,
        generators=[torch.Generator().manual_seed(5)],
        **settings,
    )
    stock = drawn(
        pipeline, num_inference_steps=2, guidance_scale=0.0, output_type="latent", **settings
    )
    torch.testing.assert_close(KREA2.unpacked(stock, 64, 64), latents, rtol=1e-5, atol=1e-6)
