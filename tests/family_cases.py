"""Families whose tests are one matrix: what tells their pipelines apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
    ZImageImg2ImgPipeline,
    ZImageInpaintPipeline,
    ZImagePipeline,
)

from tlora_cli import Adapter, attach
from tlora_cli.families import FAMILIES, Family

RANK, MIN_RANK = 8, 2


@dataclass(frozen=True)
class Size:
    """A published size.

    Attributes:
        base: on the Hub; None: the standard one.
        parameters: of the denoiser.
        layers: that are adapted.
        trained: parameters of `vanilla_tlora` at rank 32.
    """

    base: str | None
    parameters: int
    layers: int
    trained: int


@dataclass(frozen=True)
class Case:
    """A family under test.

    Attributes:
        name: of the family; its tiny pipeline is the fixture `tiny_<name>`.
        stock: its pipeline in diffusers.
        timestep: name and place of the denoiser's argument.
        time: (what the denoiser is told) -> t on the 0..1000 scale, by the pipeline's own formula.
        guidance: values without and with a second answer.
        layers: adapted in the tiny one, by `attention` and by `linear`.
        sizes: published ones, by a word for each.
        others: further pipelines, by what they do.
        levels: whether its pipeline gives noise levels as a list, which UniPC doesn't take.
        options: of every drawing.
    """

    name: str
    stock: Any
    timestep: tuple[str, int]
    time: Callable[[float], float]
    guidance: tuple[float, float]
    layers: tuple[int, int]
    sizes: dict[str, Size]
    others: dict[str, tuple[Any, dict[str, Any]]] = field(default_factory=dict)
    levels: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> Family:
        """The family."""
        return FAMILIES[self.name]


CASES = {
    "z_image": Case(
        "z_image",
        ZImagePipeline,
        ("t", 1),
        lambda told: 1000 - 1000 * told,
        (0.0, 4.0),
        # Seven linear layers a block and a modulation, which the block of the text lacks.
        (4 * 4, 4 * 7 + 3),
        {"6B": Size(None, 6_154_908_736, 4 * 34, 32 * 4 * 34 * 2 * 3840)},
        {"img2img": (ZImageImg2ImgPipeline, {}), "inpainting": (ZImageInpaintPipeline, {})},
        levels=True,
    ),
    "sd3": Case(
        "sd3",
        StableDiffusion3Pipeline,
        ("timestep", 3),
        lambda told: told,
        (1.0, 4.0),
        # Seven layers of attention a block and four of the picture alone in two; the last block
        # has no layers behind the text's attention.
        (3 * 7 + 2 * 4, 3 * (7 + 2 + 2) + 2 * 4 + 2 * 3),
        {
            "medium": Size(None, 2_243_171_520, 24 * 7 + 13 * 4, 32 * (24 * 7 + 13 * 4) * 2 * 1536),
            "large": Size(
                "stabilityai/stable-diffusion-3.5-large",
                8_056_627_520,
                38 * 7,
                32 * 38 * 7 * 2 * 2432,
            ),
        },
        {
            "img2img": (StableDiffusion3Img2ImgPipeline, {}),
            "inpainting": (StableDiffusion3InpaintPipeline, {}),
        },
    ),
}


def load(stock: Any, folder: Any) -> Any:
    """Return a pipeline as diffusers loads it."""
    pipeline = stock.from_pretrained(folder)
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


def drawn(pipeline: Any, **options: Any) -> Any:
    """Draw 64 x 96 pixels with the stock pipeline."""
    settings = {"width": 64, "height": 96, "num_inference_steps": 6}
    seed = torch.Generator().manual_seed(5)
    return pipeline(prompt="a dog", generator=seed, **{**settings, **options}).images
