"""ComfyUI's loaders of a flow model whose parts are files of their own; see `ComfyUI`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tlora_cli.families.facts import ComfyUI

Node = tuple[str, Mapping[str, Any]]
"""Class and inputs of a node."""
SIZE = {"width": 1024, "height": 1024, "batch_size": 1}


def flow_sampling(steps: int, guidance: float) -> dict[str, Any]:
    """Return KSampler's inputs for Euler's method; a guidance of 1 is none."""
    return {"steps": steps, "cfg": guidance, "sampler_name": "euler", "scheduler": "simple"}


def flow_times(shift: float, *, logarithm: bool = False) -> dict[str, Any]:
    """Return `start_percent` and `note` under a model's default shift in ComfyUI.

    Percent p of the sampling has the noise level of 1 - p, whose odds are multiplied by a factor.

    Args:
        shift: the factor.
        logarithm: whether it is the factor's logarithm (ComfyUI's ModelSamplingFlux).
    """
    factor = math.exp(shift) if logarithm else shift

    def percent(t: float) -> float:
        level = t / 1000
        return factor * (1 - level) / (level + factor * (1 - level))

    note = f"the workflow's times hold for ComfyUI's default shift, {shift:g}"
    return {"start_percent": percent, "note": note}


def loaded_apart(
    model: str, clip: Node, vae: str, latent: str = "EmptySD3LatentImage", **facts: Any
) -> ComfyUI:
    """Return the facts of a family whose transformer, text encoders and VAE are files of their own.

    Args:
        model: file name of the transformer.
        clip: the node that loads the text encoders.
        vae: file name of the VAE.
        latent: class of the node that makes the empty latent.
        facts: the other fields of `ComfyUI`.
    """
    return ComfyUI(
        nodes={
            "model": ("UNETLoader", {"unet_name": model, "weight_dtype": "default"}),
            "clip": clip,
            "vae": ("VAELoader", {"vae_name": vae}),
            "latent": (latent, SIZE),
        },
        model=("model", 0),
        clip=("clip", 0),
        vae=("vae", 0),
        latent=("latent", 0),
        peft_names=True,  # kohya's would fuse queries, keys and values at three times the rank
        **facts,
    )
