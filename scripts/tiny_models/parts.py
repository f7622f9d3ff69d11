"""Layers and schedulers that several tiny pipelines share."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

TEXT_GAIN = 4.0
"""Gain of the layers that bring in the text: one word of 77 would hardly show otherwise."""


def amplify(denoiser: torch.nn.Module, ending: str) -> None:
    """Scale the weights of the layers whose names end so."""
    with torch.no_grad():
        for name, module in denoiser.named_modules():
            if name.endswith(ending):
                module.weight *= TEXT_GAIN


def moving_shift() -> FlowMatchEulerDiscreteScheduler:
    """Make the scheduler of FLUX.1-dev, which FLUX.2 has as well."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
