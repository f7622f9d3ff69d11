"""Unmodified diffusers pipelines sample with the right mask at every step.

The expected picture comes from a copy of the pipeline without our hooks, whose weights are merged
anew before every call with the components that the formula keeps at that call's timestep.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    Flux2KleinInpaintPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
    QwenImageImg2ImgPipeline,
    QwenImageInpaintPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image
from torch import nn

from tlora_cli import Adapter, attach
from tlora_cli.families import FAMILIES

RANK, MIN_RANK = 8, 2
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
MASK = Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), 16))


def stirred(denoiser: nn.Module) -> Adapter:
    adapter = attach(denoiser, "tlora", RANK, MIN_RANK)
    chance = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=chance)
    return adapter


def merge_at_every_call(denoiser: nn.Module, adapter: Adapter, scale: float) -> list[float]:
    """Make the bare denoiser merge the formula's components; return the timesteps it will see."""
    modules = dict(denoiser.named_modules())
    weights = {name: modules[name].weight.detach().clone() for name in adapter.layers}
    seen: list[float] = []

    def merge(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs["timestep"] if "timestep" in kwargs else args[1]
        t = round(float(torch.as_tensor(given).reshape(-1)[0]) * scale, 4)
        seen.append(t)
        rank = math.floor((RANK - MIN_RANK) * (1000 - t) / 1000) + MIN_RANK
        for name, layer in adapter.layers.items():
            down, up = (x.detach().double() for x in layer.factors())
            keep = [c * RANK + k for c in range(layer.copies) for k in range(rank)]
            modules[name].weight.data = (weights[name] + up[:, keep] @ down[keep]).float()

    denoiser.register_forward_pre_hook(merge, with_kwargs=True)
    return seen


def compare(pipeline: Any, part: str, scale: float, arguments: dict[str, Any]) -> None:
    """Run our pipeline and the merging copy; the pictures must agree."""
    pipeline.set_progress_bar_config(disable=True)
    twin = copy.deepcopy(pipeline)
    twin.set_progress_bar_config(disable=True)
    before = run(pipeline, arguments)
    adapter = stirred(getattr(pipeline, part))
    seen = merge_at_every_call(getattr(twin, part), adapter, scale)
    ours, expected = run(pipeline, arguments), run(twin, arguments)
    assert len(set(seen)) >= 3
    assert np.abs(ours - expected).max() < 1e-3
    assert np.abs(ours - before).max() > 1e-2  # the adapter did something
    adapter.remove()
    assert np.array_equal(run(pipeline, arguments), before)


def run(pipeline: Any, arguments: dict[str, Any]) -> np.ndarray:
    generator = torch.Generator().manual_seed(5)
    return pipeline(
        prompt="a photo of a dog", generator=generator, output_type="np", **arguments
    ).images


SDXL = {
    "text-to-image": (StableDiffusionXLPipeline, {"height": 64, "width": 64}),
    "img2img": (StableDiffusionXLImg2ImgPipeline, {"image": PICTURE, "strength": 0.7}),
    "inpainting": (
        StableDiffusionXLInpaintPipeline,
        {"image": PICTURE, "mask_image": MASK, "height": 64, "width": 64, "strength": 0.9},
    ),
}


@pytest.mark.parametrize("kind", SDXL)
@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, DDIMScheduler])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_sdxl(tiny_sdxl: Path, kind: str, scheduler: Any, guidance: float) -> None:
    pipeline_class, arguments = SDXL[kind]
    pipeline = pipeline_class.from_pretrained(tiny_sdxl)
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    settings = {**arguments, "guidance_scale": guidance, "num_inference_steps": 6}
    compare(pipeline, "unet", 1.0, settings)


FLUX = {
    "text-to-image": (FluxPipeline, {"height": 64, "width": 64}),
    "img2img": (
        FluxImg2ImgPipeline,
        {"image": PICTURE, "height": 64, "width": 64, "strength": 0.7},
    ),
    "inpainting": (
        FluxInpaintPipeline,
        {"image": PICTURE, "mask_image": MASK, "height": 64, "width": 64, "strength": 0.9},
    ),
}


@pytest.mark.parametrize("kind", FLUX)
def test_flux(tiny_flux: Path, kind: str) -> None:
    pipeline_class, arguments = FLUX[kind]
    pipeline = pipeline_class.from_pretrained(tiny_flux)
    compare(pipeline, "transformer", 1000.0, {**arguments, "num_inference_steps": 6})


FLUX2: dict[str, tuple[Any, dict[str, Any]]] = {
    "a picture to edit": (Flux2KleinPipeline, {"image": PICTURE, "guidance_scale": 1.0}),
    "inpainting": (
        Flux2KleinInpaintPipeline,
        {"image": PICTURE, "mask_image": MASK, "strength": 0.9},
    ),
    "dev": (Flux2Pipeline, {}),
}


@pytest.mark.full
@pytest.mark.parametrize("kind", FLUX2)
def test_flux2(tiny_flux2: Path, tiny_flux2_dev: Path, kind: str) -> None:
    """Text-to-image alone is in test_flux2.py, against a callback."""
    pipeline_class, arguments = FLUX2[kind]
    pipeline = pipeline_class.from_pretrained(tiny_flux2_dev if kind == "dev" else tiny_flux2)
    settings = {"height": 64, "width": 64, "num_inference_steps": 8, **arguments}
    compare(pipeline, "transformer", 1000.0, settings)


@pytest.mark.full
@pytest.mark.parametrize("scheduler", FAMILIES["flux2"].samplers)
def test_every_flux2_scheduler_solves_the_same_equation(tiny_flux2: Path, scheduler: str) -> None:
    pipeline = Flux2KleinPipeline.from_pretrained(tiny_flux2)
    arguments = {"height": 64, "width": 64, "num_inference_steps": 20}
    pipeline.set_progress_bar_config(disable=True)
    euler = run(pipeline, arguments)
    pipeline.scheduler = FAMILIES["flux2"].sampler(scheduler, pipeline.scheduler.config)
    assert np.abs(run(pipeline, arguments) - euler).mean() < 0.02


QWEN_IMAGE: dict[str, tuple[Any, dict[str, Any]]] = {
    "img2img": (QwenImageImg2ImgPipeline, {"image": PICTURE, "strength": 0.7}),
    "inpainting": (
        QwenImageInpaintPipeline,
        {"image": PICTURE, "mask_image": MASK, "strength": 0.9},
    ),
}


@pytest.mark.full
@pytest.mark.parametrize("kind", QWEN_IMAGE)
def test_qwen_image(tiny_qwen_image: Path, kind: str) -> None:
    """Text-to-image alone is in test_packed_flow.py, against a callback."""
    pipeline_class, arguments = QWEN_IMAGE[kind]
    pipeline = pipeline_class.from_pretrained(tiny_qwen_image)
    settings = {"height": 64, "width": 64, "num_inference_steps": 8, "negative_prompt": " "}
    compare(pipeline, "transformer", 1000.0, {**settings, **arguments})


@pytest.mark.parametrize("scheduler", ["euler", "dpmpp_2m"])
def test_flux_true_guidance_and_schedulers(tiny_flux: Path, scheduler: str) -> None:
    pipeline = FluxPipeline.from_pretrained(tiny_flux)
    pipeline.scheduler = FAMILIES["flux"].sampler(scheduler, pipeline.scheduler.config)
    arguments = {"height": 64, "width": 64, "num_inference_steps": 4, "true_cfg_scale": 2.0}
    compare(pipeline, "transformer", 1000.0, {**arguments, "negative_prompt": "blurry"})


@pytest.mark.parametrize("scheduler", FAMILIES["flux"].samplers)
def test_every_flux_scheduler_solves_the_same_equation(tiny_flux: Path, scheduler: str) -> None:
    pipeline = FluxPipeline.from_pretrained(tiny_flux)
    arguments = {"height": 64, "width": 64, "num_inference_steps": 20}
    pipeline.set_progress_bar_config(disable=True)
    euler = run(pipeline, arguments)
    pipeline.scheduler = FAMILIES["flux"].sampler(scheduler, pipeline.scheduler.config)
    assert np.abs(run(pipeline, arguments) - euler).mean() < 0.02


@pytest.mark.parametrize("scheduler", FAMILIES["sdxl"].samplers)
def test_every_sdxl_scheduler_draws(tiny_sdxl: Path, scheduler: str) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    pipeline.scheduler = FAMILIES["sdxl"].sampler(scheduler, pipeline.scheduler.config)
    pixels = run(pipeline, {"height": 64, "width": 64, "num_inference_steps": 4})
    assert np.isfinite(pixels).all()
    assert pixels.std() > 0.01
