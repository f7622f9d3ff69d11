"""Bases of true size with random weights: for measuring, without a download."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from make_tiny_models import WRITERS
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.plugins import resolve

# Public facts of the two bases' config.json; fields at the libraries' defaults are left out.
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "vocab_size": 49408,
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "vocab_size": 49408,
}
T5_XXL = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False,
    "use_cache": False,
    "vocab_size": 32128,
}


def random_denoiser(family: str, device: torch.device, dtype: torch.dtype) -> Any:
    """Return a family's denoiser of true size with random weights."""
    with device:
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            kind = FAMILIES[family]
            return resolve(kind.denoiser_class).from_config(dict(kind.standard_denoiser))
        finally:
            torch.set_default_dtype(before)


def write_random_base(
    family: str, folder: Path, device: torch.device | None = None, sizes: Any = None
) -> Path:
    """Write a pipeline folder of true size in bf16, if it is not there; return it.

    The tokenizers are those of the tiny models: words are cut up into letters. All that is stored
    and computed is as in the true model.

    Args:
        family: `sdxl` or `flux`.
        folder: for the bases; the base is a folder in it.
        device: where the weights are drawn; default a GPU if there is one.
        sizes: (settings of a part, its name) -> other settings; for tests.
    """
    target = folder / f"random-{family}"
    if (target / "model_index.json").exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    changed = sizes or (lambda settings, part: settings)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        tiny = Path(place) / "tiny"
        WRITERS[family](tiny, 0)
        pipeline: Any = resolve(FAMILIES[family].pipeline_class).from_pretrained(tiny)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            with device:
                _enlarge(family, pipeline, changed)
        finally:
            torch.set_default_dtype(before)
        unfinished = Path(place) / "base"
        pipeline.save_pretrained(unfinished)
        unfinished.rename(target)
    return target


def _enlarge(family: str, pipeline: Any, changed: Any) -> None:
    """Put parts of true size in the place of the tiny ones."""
    kind = FAMILIES[family]
    settings = changed(dict(kind.standard_denoiser), kind.denoiser)
    setattr(pipeline, kind.denoiser, resolve(kind.denoiser_class).from_config(settings))
    pipeline.vae = AutoencoderKL(**changed(dict(kind.standard_vae), "vae"))
    first = CLIPTextConfig(**{**pipeline.text_encoder.config.to_dict(), **changed(CLIP_L, "clip")})
    pipeline.text_encoder = CLIPTextModel(first)
    own = pipeline.text_encoder_2.config.to_dict()
    if family == "sdxl":
        second = CLIPTextConfig(**{**own, **changed(CLIP_G, "clip_2")})
        pipeline.text_encoder_2 = CLIPTextModelWithProjection(second)
    else:
        pipeline.text_encoder_2 = T5EncoderModel(T5Config(**{**own, **changed(T5_XXL, "t5")}))
