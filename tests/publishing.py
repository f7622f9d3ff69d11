"""Names and texts of the tests of `tlora publish`."""

from __future__ import annotations

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
FLUX = "black-forest-labs/FLUX.1-dev"
ADAPTER = "pytorch_lora_weights.safetensors"
PROMPTS = ["a V* in the snow", "a V* | `made` of <b>glass</b>"]
SECRET = "secret-picture-of-anna"
