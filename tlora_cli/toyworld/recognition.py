"""Tell a drawing of the built-in world from a photograph, by what a base's VAE can repeat."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.foundation.bundled import bases

LARGEST_ERROR = 0.09
"""Mean error of a reconstruction, in [-1, 1], up to which a picture is a drawing. Of 300 drawings
the largest was .072; of five photographs the least was .105."""


def is_drawing(base: str, pixels: Tensor) -> bool:
    """Say whether a picture is one that a base can draw.

    Args:
        base: name of a built-in base.
        pixels: (3, 64, 64) in [-1, 1].
    """
    vae = _vae(base)
    with torch.no_grad():
        repeated = vae.decode(vae.encode(pixels[None]).latent_dist.mean).sample[0]
    return float((repeated - pixels).abs().mean()) <= LARGEST_ERROR


@lru_cache
def _vae(base: str) -> Any:
    """Return a base's VAE; it is small, and a run looks at its pictures more than once."""
    return load_pipeline(FAMILIES[bases()[base]], Base(base), parts=("vae",)).vae.float().eval()
