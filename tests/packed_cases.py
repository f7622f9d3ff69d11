"""Families whose transformer takes packed latents, as the tests of all of them see each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import Krea2Pipeline, QwenImage21Pipeline, QwenImagePipeline
from PIL import Image
from torch import Tensor

from tlora_cli import Adapter, attach
from tlora_cli.families import FAMILIES, Family

RANK, MIN_RANK = 8, 2
NO_CACHE = {"use_kv_cache": False}


@dataclass(frozen=True)
class Case:
    """A family, and what its stock pipeline is called with.

    Attributes:
        family: its name, and that of its tiny pipeline's fixture.
        pipeline: the stock class.
        guided: arguments that turn guidance on.
        plain: arguments that leave it off.
        guidance: what the family calls both.
        published: parameters of the published transformer.
        layers: that an adapter has by default.
        trained: parameters of `vanilla_tlora` at rank 32.
        left_out: attention blocks without an adapter.
        channels: of a latent.
        opaque: whether the VAE also takes how opaque a picture is.
        cuts: whether the pipeline cuts long prompts off.
        texts: for a batch, in which a sample leads to what it leads to alone.
    """

    family: str
    pipeline: Any
    guided: dict[str, Any]
    plain: dict[str, Any]
    guidance: tuple[float, float]
    published: int
    layers: int
    trained: int
    left_out: int = 0
    channels: int = 16
    opaque: bool = False
    cuts: bool = True
    texts: tuple[str, str, str] = ("a dog", "a red cat", "it")

    @property
    def kind(self) -> Family:
        """The family."""
        return FAMILIES[self.family]

    def stock(self, folder: Path) -> Any:
        """Return the pipeline as diffusers loads it."""
        made = self.kind.made_parts(str(folder), None)
        pipeline = self.pipeline.from_pretrained(folder, **made)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def latent(self, width: int, height: int) -> tuple[int, int, int]:
        """Return the shape of a latent, for a size in pixels."""
        factor = self.kind.vae_factor
        return self.channels, height // factor, width // factor

    def given(self, picture: Tensor) -> Tensor:
        """Return what the VAE is given of a picture (3, H, W)."""
        opaque = torch.ones_like(picture[:1])
        return torch.cat([picture, opaque]) if self.opaque else picture

    def shown(self, picture: Image.Image) -> Image.Image:
        """Return a picture of the stock pipeline on white, if it is transparent."""
        if not self.opaque:
            return picture
        ground = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(ground, picture).convert("RGB")


CASES = {
    "qwen_image": Case(
        "qwen_image",
        QwenImagePipeline,
        guided={"true_cfg_scale": 4.0, "negative_prompt": ""},
        plain={"true_cfg_scale": 1.0},
        guidance=(4.0, 1.0),
        published=20_430_401_088,
        layers=60 * 7,
        trained=32 * 60 * 7 * 2 * 3072,
    ),
    "krea2": Case(
        "krea2",
        Krea2Pipeline,
        guided={"guidance_scale": 4.5},
        plain={"guidance_scale": 0.0},
        guidance=(4.5, 0.0),
        published=12_820_073_036,
        layers=28 * 5,
        trained=32 * 28 * (3 * 2 * 6144 + 2 * (6144 + 1536)),
        left_out=4,
    ),
    "qwen_image_21": Case(
        "qwen_image_21",
        QwenImage21Pipeline,
        guided={"true_cfg_scale": 4.0, "negative_prompt": "", **NO_CACHE},
        plain={"true_cfg_scale": 1.0, **NO_CACHE},
        guidance=(4.0, 1.0),
        published=7_115_124_736,
        layers=32 * 4,
        trained=32 * 32 * 4 * 2 * 4096,
        channels=64,
        opaque=True,
        cuts=False,
        texts=("a dog", "a cat", "a fox"),  # of one length: others would move the picture
    ),
}


def trained(denoiser: Any, method: str = "vanilla_tlora", **options: Any) -> Adapter:
    """Attach an adapter, and move it as if it were trained."""
    options = options or {"min_rank": MIN_RANK}
    adapter = attach(denoiser, method, RANK, **options)
    chance = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=chance)
    return adapter


def pixels(width: int = 64, height: int = 64) -> Tensor:
    """Return a picture of noise, (3, H, W) in [-1, 1]."""
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def drawn(pipeline: Any, **options: Any) -> Any:
    """Return what the stock pipeline draws of a dog."""
    settings = {"width": 64, "height": 96, "num_inference_steps": 6, "output_type": "np"}
    seed = torch.Generator().manual_seed(5)
    return pipeline(prompt="a dog", generator=seed, **{**settings, **options}).images
