"""What Qwen-Image 2.1 alone has: a cache of texts, transparency, a processor, levels of its own.

What it shares with other families is tested in `test_packed_flow.py`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packed_cases import CASES, NO_CACHE, drawn, trained
from transformers import AutoTokenizer

from tlora_cli import UserError
from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline

CASE, FAMILY = CASES["qwen_image_21"], FAMILIES["qwen_image_21"]


@pytest.fixture
def pipeline(tiny_qwen_image_21: Path) -> Any:
    return CASE.stock(tiny_qwen_image_21)


def test_its_cache_of_texts_is_refused_under_a_mask_and_right_without_one(pipeline: Any) -> None:
    """A plain LoRA's texts are the same at each timestep, so the cache changes nothing."""
    adapter = trained(pipeline.transformer)
    with pytest.raises(UserError, match="use_kv_cache=False"):
        drawn(pipeline)
    masked = drawn(pipeline, **NO_CACHE)
    adapter.remove()
    plain = trained(pipeline.transformer, "lora", targets="linear")
    cached, anew = drawn(pipeline), drawn(pipeline, **NO_CACHE)
    assert np.abs(cached - anew).max() < 1e-4
    assert np.abs(anew - masked).max() > 1e-2
    plain.remove()


def test_what_is_transparent_is_put_on_white(pipeline: Any) -> None:
    latents = torch.randn(1, 64, 4, 4, generator=torch.Generator().manual_seed(0))
    [picture] = FAMILY.decode(pipeline.vae, latents)
    assert picture.mode == "RGB"
    shift, scale = FAMILY.latent_scale(pipeline.vae, latents)
    with torch.no_grad():
        whole = pipeline.vae.decode((latents / scale + shift)[:, :, None]).sample[0, :, 0]
    levels = (whole / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
    assert levels.shape == (64, 64, 4) and levels[..., 3].std() > 0.05
    wanted = levels[..., :3] * levels[..., 3:] + (1 - levels[..., 3:])
    assert np.abs(np.asarray(picture) / 255 - wanted).max() < 2.5 / 255


def test_texts_become_the_tokens_of_the_base_without_torchvision(tiny_qwen_image_21: Path) -> None:
    made = FAMILY.made_parts(str(tiny_qwen_image_21), None)["processor"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen_image_21 / "processor")
    texts = ["<|im_start|>user\na dog<|im_end|>\n", "a"]
    rows = made(text=texts, padding=True, padding_side="left", return_tensors="pt")
    alone = [tokenizer(text).input_ids for text in texts]
    for ids, mask, wanted in zip(rows.input_ids, rows.attention_mask, alone, strict=True):
        assert ids[mask.bool()].tolist() == wanted and mask[-1] == 1


@pytest.mark.parametrize("steps", [3, 5])
def test_as_many_steps_are_drawn_as_are_asked_for(
    steps: int, tiny_qwen_image_21: Path, tmp_path: Path
) -> None:
    """Also of a base whose index has levels of its own: three, here, which are taken for three."""
    folder = shutil.copytree(tiny_qwen_image_21, tmp_path / "base")
    file = folder / "model_index.json"
    levels = [1.0, 0.9, 0.5]
    file.write_text(json.dumps({**json.loads(file.read_text()), "sample_sigmas": levels}))
    base = load_pipeline(FAMILY, Base(str(folder)))
    base.set_progress_bar_config(disable=True)
    seen: list[float] = []
    base.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(float(kwargs["timestep"][0])), with_kwargs=True
    )
    with torch.no_grad():
        FAMILY.sample(
            base,
            FAMILY.encode_prompts(base, ["a dog"]),
            None,
            width=64,
            height=64,
            steps=steps,
            guidance=1.0,
            generators=[torch.Generator().manual_seed(0)],
        )
    assert len(seen) == steps and seen[0] == pytest.approx(1.0)
    mine = seen[1] / (1 - seen[1]) / (9.0 if steps == 3 else 4.0)  # the shift, a factor of odds
    assert mine == pytest.approx(seen[2] / (1 - seen[2]) / (1.0 if steps == 3 else 1.5), rel=1e-3)
