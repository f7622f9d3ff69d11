"""Facts of latents that a VAE's configuration says, in the fields of any kind of VAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def channels_of(config: Mapping[str, Any]) -> int:
    """Return the channels of a latent; 4 if they are not said, as diffusers has it."""
    channels: int = config.get("latent_channels", config.get("z_dim", 4))
    return channels


def factor_of(config: Mapping[str, Any]) -> int:
    """Return how many pixels a place of the latent stands for, along a side."""
    halved = config.get("temperal_downsample")  # diffusers' own spelling, of VAEs of films
    steps = len(config.get("block_out_channels", (0,))) - 1 if halved is None else len(halved)
    factor: int = 2**steps
    return factor
