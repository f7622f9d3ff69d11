"""Qwen-Image against diffusers: a training step, texts of several lengths, other bases."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from packed_cases import CASES, pixels
from safetensors.torch import save_file
from torch import Tensor
from training_runs import recipe_values, run

from tlora_cli import UserError
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.families.qwen_image import QWEN_IMAGE, QwenImage
from tlora_cli.families.text_rows import MASK, TEXT, evened, joined, mask_of
from tlora_cli.recipe.models import Recipe
from tlora_cli.training.batch import Batch, Phrased
from tlora_cli.training.encoding import EncodedTexts, in_one_length
from tlora_cli.training.execution import copy_into, on_tensors
from tlora_cli.training.step import Loss


def test_a_training_step_is_that_of_diffusers(tiny_qwen_image: Path) -> None:
    """Its formulas are those of `train_dreambooth_lora_qwen_image.py`, on the same numbers."""
    pipeline = CASES["qwen_image"].stock(tiny_qwen_image)
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
        clean = ((clean - mean) * (1 / std)).permute(0, 2, 1, 3, 4)  # frames before channels
        noise = torch.randn(clean.shape, generator=chance)
        level = (t / 1000).view(-1, 1, 1, 1, 1)
        packed = pipeline._pack_latents((1 - level) * clean + level * noise, 2, 16, 12, 8)
        answer = denoiser(
            hidden_states=packed,
            encoder_hidden_states=text,
            encoder_hidden_states_mask=mask,
            timestep=t / 1000,
            img_shapes=[(1, 6, 4)] * 2,
            return_dict=False,
        )[0]
        found = pipeline._unpack_latents(answer, 96, 64, 8)
        target = (noise - clean).permute(0, 2, 1, 3, 4)
        wanted = ((found - target) ** 2).flatten(1).mean(1)

        hook = denoiser.register_forward_pre_hook(remember, with_kwargs=True)
        latents = torch.stack([QWEN_IMAGE.encode_image(vae, one).mean for one in pictures])
        alone = [QWEN_IMAGE.encode_prompts(pipeline, [one]) for one in prompts]
        batch = Batch(latents, noise[:, 0], t, joined(alone), None, 2)
        objective = QWEN_IMAGE.objective(dict(pipeline.scheduler.config), "auto")
        whole, losses = Loss(QWEN_IMAGE, denoiser, objective, torch.float32)(batch)
        hook.remove()

    def same(ours: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=2e-6, check_dtype=False)

    assert not mask.all()
    same(given["hidden_states"], packed)
    same(given["timestep"], t / 1000)
    same(given["encoder_hidden_states_mask"], mask.bool())
    same(given["encoder_hidden_states"], text)
    same(objective.target(batch.latents, batch.noise, t), target[:, :, 0])
    same(losses, wanted)
    same(whole, wanted.mean())


# --- texts of several lengths -----------------------------------------------------------------


def text(length: int, value: float = 1.0) -> dict[str, Tensor]:
    return {TEXT: torch.full((1, length, 4), value), "size": torch.ones(1, 2)}


def test_texts_of_one_length_have_no_mask() -> None:
    texts = [text(3), text(3, 2.0)]
    assert evened(texts) == texts
    rows = joined(texts)
    assert rows.keys() == {TEXT, "size"}
    assert rows[TEXT].shape == (2, 3, 4)
    assert mask_of(rows).all()


def test_shorter_texts_are_filled_up_and_masked() -> None:
    rows = joined([text(2), text(5, 2.0), text(3, 3.0)])
    assert rows[TEXT].shape == (3, 5, 4)
    assert rows["size"].shape == (3, 2)
    assert rows[MASK].sum(1).tolist() == [2, 5, 3]
    assert torch.equal(rows[TEXT][..., 0] != 0, rows[MASK])
    again = joined([{key: value[:1] for key, value in rows.items()}, text(7)])
    assert again[MASK].sum(1).tolist() == [2, 7]


def test_a_run_has_all_its_texts_in_one_length() -> None:
    """So batches of a recorded step have the same parts and shapes, whatever they hold."""
    phrases = {"one": (Phrased("one in snow", text(6), text(5)),)}
    captions = {"one": text(3), "two": text(4), "": text(1)}
    whole = in_one_length(EncodedTexts(captions, phrases, None, None, None, None))
    [phrase] = whole.phrases["one"]
    rows = [*whole.captions.values(), phrase.own, phrase.of_class]
    assert {row[TEXT].shape for row in rows} == {(1, 6, 4)}
    assert [int(row[MASK].sum()) for row in rows] == [3, 4, 1, 6, 5]
    latents, t = torch.zeros(2, 4, 8, 8), torch.zeros(2)
    first, second = (
        Batch(latents, latents, t, joined(part), None, 2) for part in (rows[:2], rows[2:4])
    )
    buffers = on_tensors(first, torch.clone)
    copy_into(buffers, second)
    assert torch.equal(buffers.conditioning[MASK], second.conditioning[MASK])


@pytest.mark.full
def test_captions_of_several_lengths_train_in_one_batch(
    tiny_qwen_image: Path, tmp_path: Path
) -> None:
    outcome = run(
        tiny_qwen_image,
        tmp_path,
        adapter={"rank": 4},
        concept__caption_dropout=0.5,
        concept__prior={"prompt": "a photo of an animal in a wood", "count": 2},
        train__batch_size=2,
        train__preview={"every": 3, "prompts": ["a V* in the snow"]},
    )
    assert outcome.adapter.is_file()


# --- other bases --------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"), [("zero_cond_t", True), ("use_layer3d_rope", True), ("out_channels", 64)]
)
def test_transformers_for_editing_are_refused(
    tiny_qwen_image: Path, field: str, value: object, tmp_path: Path
) -> None:
    shutil.copytree(tiny_qwen_image, tmp_path / "base")
    file = tmp_path / "base" / "transformer" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(UserError, match=r"is told other things|answers with 256") as refused:
        load_pipeline(QWEN_IMAGE, Base(str(tmp_path / "base")), parts=())
    assert "as Qwen/Qwen-Image is" in str(refused.value.do)


def test_its_successor_is_another_family(tiny_qwen_image: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_qwen_image, tmp_path / "base")
    file = tmp_path / "base" / "model_index.json"
    other = {
        "_class_name": "QwenImage21Pipeline",
        "transformer": ["diffusers", "QwenImage21Transformer2DModel"],
    }
    file.write_text(json.dumps({**json.loads(file.read_text()), **other}))
    with pytest.raises(UserError, match="is a QwenImage21Pipeline, not a qwen_image") as refused:
        load_pipeline(QWEN_IMAGE, Base(str(tmp_path / "base")), parts=())
    assert refused.value.do == "set family: qwen_image_21, or change the base"


def test_what_a_file_without_settings_says_counts_as_false(
    tiny_qwen_image: Path, tmp_path: Path
) -> None:
    """The published configuration is older than the settings of its successors."""
    shutil.copytree(tiny_qwen_image, tmp_path / "base")
    file = tmp_path / "base" / "transformer" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in config.items() if k != "zero_cond_t"}))
    load_pipeline(QWEN_IMAGE, Base(str(tmp_path / "base")), parts=())


def test_a_single_file_is_the_folder(tiny_qwen_image: Path, tmp_path: Path) -> None:
    """ComfyUI's has diffusers' own names."""
    transformer = QwenImageTransformer2DModel.from_pretrained(
        tiny_qwen_image, subfolder="transformer"
    )
    state = transformer.state_dict()
    save_file(state, tmp_path / "one.safetensors")
    base = Base(str(tmp_path / "one.safetensors"), config=str(tiny_qwen_image))
    loaded = load_pipeline(QWEN_IMAGE, base, parts=("denoiser",)).transformer.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_a_card_that_no_settings_fit_is_refused(
    tiny_qwen_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QwenImage, "memory_presets", {"24gb": {"quantization": "nf4"}})
    with pytest.raises(ValueError, match=r"no settings make Qwen-Image fit a card of 16GB; its sm"):
        Recipe.model_validate(recipe_values(tiny_qwen_image, tmp_path, train__memory="16gb"))
