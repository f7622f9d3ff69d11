"""The built-in bases in the stock pipelines of diffusers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    FluxImg2ImgPipeline,
    FluxPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image

from tlora_cli.foundation.bundled import model_folder
from tlora_cli.toyworld.factors import Scene
from tlora_cli.toyworld.reading import read
from tlora_cli.toyworld.renderer import draw
from tlora_cli.toyworld.scores import prompted_right
from tlora_cli.toyworld.suites import base_tasks

SCENE = Scene(
    {"class": "cat", "color": "purple", "background": "meadow", "position": "left",
     "accessory": "none", "marking": "none", "feature": "none"}
)  # fmt: skip
PROMPT = "a photo of a purple cat, in a meadow, on the left"


def loaded(kind: Any, base: str) -> Any:
    pipeline = kind.from_pretrained(model_folder(base), torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(float)


@pytest.mark.parametrize(
    ("kind", "base"),
    [(StableDiffusionXLImg2ImgPipeline, "toy-sdxl"), (FluxImg2ImgPipeline, "toy-flux")],
)
def test_image_to_image_keeps_the_picture(kind: Any, base: str) -> None:
    """With little noise the drawing comes back; what the VAE keeps is the most there can be."""
    drawing = draw(SCENE).image
    found = loaded(kind, base)(
        PROMPT,
        image=drawing,
        strength=0.3,
        num_inference_steps=20,
        guidance_scale=3.5,
        height=64,
        width=64,
        generator=generator(),
    ).images[0]
    assert np.abs(array(found) - array(drawing)).mean() < 20
    [reading] = read([found])
    assert {name: reading[name] for name in ("class", "background", "position")} == {
        name: SCENE[name] for name in ("class", "background", "position")
    }


def test_inpainting_draws_in_the_hole_and_leaves_the_rest() -> None:
    drawing = draw(SCENE).image
    hole = Image.new("L", (64, 64))
    hole.paste(255, (38, 12, 62, 62))
    found = loaded(StableDiffusionXLInpaintPipeline, "toy-sdxl")(
        PROMPT,
        image=drawing,
        mask_image=hole,
        strength=0.99,
        num_inference_steps=20,
        guidance_scale=3.5,
        height=64,
        width=64,
        generator=generator(),
    ).images[0]
    change = np.abs(array(found) - array(drawing)).mean(2)
    inside = np.asarray(hole) > 0
    assert change[inside].mean() > change[~inside].mean()
    assert read([found])[0]["class"] == "cat"


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "base"), [(StableDiffusionXLPipeline, "toy-sdxl"), (FluxPipeline, "toy-flux")]
)
def test_stock_defaults_draw_what_is_asked(kind: Any, base: str) -> None:
    """Nothing is given but what the printed code gives: FLUX reads its default of 512 tokens."""
    tasks = base_tasks(40, held_out=False, seed=5)
    pipeline = loaded(kind, base)
    drawn = []
    for start in range(0, 40, 10):
        drawn += pipeline(
            [task.text for task in tasks[start : start + 10]],
            num_inference_steps=20,
            guidance_scale=3.5,
            height=64,
            width=64,
            generator=generator(),
        ).images
    readings = read(drawn)
    right = [prompted_right(r, task.asked) for r, task in zip(readings, tasks, strict=True)]
    assert np.mean(right) >= 0.8, right
