"""Where a base sees a class, against the formula written out with stock diffusers calls."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, StableDiffusionXLPipeline
from PIL import Image
from torch import Tensor
from training_runs import draw_picture

from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base
from tlora_cli.foundation.bundled import model_folder
from tlora_cli.recipe.train_sections import TrainConfig
from tlora_cli.sampling import class_map, looking
from tlora_cli.sampling.looking import look, sized

CPU = torch.device("cpu")


def settings(**more: Any) -> TrainConfig:
    return TrainConfig.model_validate({"resolution": 64, "precision": "fp32", **more})


def seen(family: str, base: Path | str, photo: Path, word: str = "cat", **more: Any) -> np.ndarray:
    own = FAMILIES[family]
    [found] = look(own, Base(str(base)), settings(**more), word, [photo], "x", CPU)
    assert found.dtype == np.float32
    return found


def noises(shape: torch.Size) -> list[tuple[int, list[Tensor]]]:
    """Return the noises of each timestep, in the order in which they are drawn."""
    generator = torch.Generator().manual_seed(0)
    return [
        (t, [torch.randn(shape, generator=generator) for _ in range(class_map.NOISES)])
        for t in (400, 600)
    ]


def pixels_of(photo: Path) -> Tensor:
    small = Image.open(photo).resize((64, 64), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 127.5 - 1


@torch.no_grad()
def by_sdxl(folder: Path, photo: Path, word: str, kind: str = "epsilon") -> Tensor:
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)
    vae, scheduler = pipeline.vae, pipeline.scheduler
    latent = vae.encode(pixels_of(photo)).latent_dist.mean * vae.config.scaling_factor
    crop = min(Image.open(photo).size)
    sizes = torch.tensor([[crop, crop, 0, 0, 64, 64]]).float()
    share = scheduler.alphas_cumprod
    texts = [
        pipeline.encode_prompt(text, do_classifier_free_guidance=False)
        for text in (f"a photo of a {word}", "")
    ]
    total = torch.zeros(latent.shape[2:])
    for t, drawn in noises(latent.shape[1:]):
        apart = torch.zeros(latent.shape[2:])
        for noise in drawn:
            noisy = share[t].sqrt() * latent + (1 - share[t]).sqrt() * noise
            named, empty = (
                pipeline.unet(
                    noisy,
                    t,
                    encoder_hidden_states=embeds,
                    added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes},
                ).sample
                for embeds, _, pooled, _ in texts
            )
            apart += (named - empty).abs().sum(1)[0]
        total += apart / apart.mean()
    return total


@torch.no_grad()
def by_flux(folder: Path, photo: Path, word: str, guidance: float) -> Tensor:
    pipeline = FluxPipeline.from_pretrained(folder, dtype=torch.float32)
    vae, transformer = pipeline.vae, pipeline.transformer
    latent = vae.encode(pixels_of(photo)).latent_dist.mean - vae.config.shift_factor
    latent = latent * vae.config.scaling_factor
    channels, height, width = latent.shape[1:]
    ids = pipeline._prepare_latent_image_ids(1, height // 2, width // 2, CPU, torch.float32)
    length = min(512, pipeline.tokenizer_2.model_max_length)
    texts = [
        pipeline.encode_prompt(text, None, max_sequence_length=length)
        for text in (f"a photo of a {word}", "")
    ]
    guided = transformer.config.guidance_embeds
    total = torch.zeros(height, width)
    for t, drawn in noises(latent.shape[1:]):
        s, apart = t / 1000, torch.zeros(height, width)
        for noise in drawn:
            noisy = (1 - s) * latent + s * noise
            named, empty = (
                transformer(
                    hidden_states=pipeline._pack_latents(noisy, 1, channels, height, width),
                    timestep=torch.tensor([s]),
                    guidance=torch.tensor([guidance]) if guided else None,
                    pooled_projections=pooled,
                    encoder_hidden_states=embeds,
                    txt_ids=text_ids,
                    img_ids=ids,
                ).sample
                for embeds, pooled, text_ids in texts
            )
            tokens = (named - empty).reshape(height // 2, width // 2, channels, 2, 2)
            apart += tokens.permute(2, 0, 3, 1, 4).reshape(channels, height, width).abs().sum(0)
        total += apart / apart.mean()
    return total


def test_sdxl_sees_what_the_formula_says(tiny_sdxl: Path, tmp_path: Path) -> None:
    photo = draw_picture(tmp_path / "photo.png")
    found = seen("sdxl", tiny_sdxl, photo)
    assert found.mean() == pytest.approx(2, abs=1e-5) and found.std() > 0.05
    assert np.abs(found - by_sdxl(tiny_sdxl, photo, "cat").numpy()).max() < 1e-4
    other = seen("sdxl", tiny_sdxl, photo, "hat")
    assert np.abs(found - other).max() > 1e-2, "the word counts"
    assert np.array_equal(found, seen("sdxl", tiny_sdxl, photo)), "to the bit"


def test_flux_sees_what_the_formula_says(tiny_flux: Path, tmp_path: Path) -> None:
    photo = draw_picture(tmp_path / "photo.png")
    found = seen("flux", tiny_flux, photo, guidance=3.5)
    assert found.std() > 0.02
    assert np.abs(found - by_flux(tiny_flux, photo, "cat", 3.5).numpy()).max() < 1e-4


@pytest.mark.full
@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_the_built_in_bases_see_what_the_formula_says(family: str, tmp_path: Path) -> None:
    """toy-sdxl predicts velocities."""
    photo = draw_picture(tmp_path / "photo.png", size=64)
    base = f"toy-{family}"
    found = seen(family, base, photo, "fish")
    folder = model_folder(base)
    by_hand = (
        by_sdxl(folder, photo, "fish") if family == "sdxl" else by_flux(folder, photo, "fish", 1.0)
    )
    assert np.abs(found - by_hand.numpy()).max() < 1e-3


@pytest.mark.parametrize(
    "family",
    [
        *("sdxl", "flux", "flux2", "z_image", "sd3"),
        *(pytest.param(name, marks=pytest.mark.full) for name in ("qwen_image", "krea2")),
    ],
)
def test_a_photo_that_is_no_square_is_seen_whole(
    family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    Image.open(draw_picture(tmp_path / "a.png")).resize((192, 96)).save(tmp_path / "a.png")
    found = seen(family, request.getfixturevalue(f"tiny_{family}"), tmp_path / "a.png")
    high, wide = found.shape
    assert 1.8 < wide / high < 2.1


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 64), (64, 64)),
        ((400, 300), (80, 48)),
        ((90, 2000), (32, 128)),
        ((9000, 16), (128, 32)),
    ],
)
def test_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    pixels = sized(Image.new("RGB", size, (255, 0, 51)), 64, 16)
    assert pixels.shape == (3, expected[1], expected[0])
    assert pixels[:, 5, 5].tolist() == pytest.approx([1, -1, -0.6], abs=1e-6)


def test_encoders_are_freed_before_the_denoiser_is_loaded(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the denoiser before it returns, so a run never holds more than it would without."""
    parts: dict[str, weakref.ref[Any]] = {}
    text, denoiser = looking.load_text, looking.load_denoiser

    def load_text(*given: Any, **named: Any) -> Any:
        pipeline = text(*given, **named)
        parts["text"] = weakref.ref(pipeline.text_encoder_2)
        return pipeline

    def load_denoiser(*given: Any, **named: Any) -> Any:
        assert parts["text"]() is None
        pipeline = denoiser(*given, **named)
        parts["unet"], parts["vae"] = weakref.ref(pipeline.unet), weakref.ref(pipeline.vae)
        return pipeline

    monkeypatch.setattr(looking, "load_text", load_text)
    monkeypatch.setattr(looking, "load_denoiser", load_denoiser)
    gc.disable()
    try:
        seen("sdxl", tiny_sdxl, draw_picture(tmp_path / "photo.png"))
        assert {name: part() for name, part in parts.items()} == dict.fromkeys(parts)
    finally:
        gc.enable()
