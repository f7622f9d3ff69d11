"""Custom Diffusion: the text's keys and values, and a learned word (Kumari et al. 2023).

W' = W + D for the keys and values of cross-attention, D = 0 at the start, as in DreamBooth;
the placeholder's embedding as in Textual Inversion.
"""

from __future__ import annotations

from dataclasses import replace

from tlora_cli.methods.dreambooth import DREAMBOOTH
from tlora_cli.methods.spec import by_family

CUSTOM_DIFFUSION = replace(
    DREAMBOOTH,
    name="custom_diffusion",
    about="keys and values of the text, and a learned word; SDXL",
    reach="text_keys_values",
    word=True,
    steps=by_family(sdxl=500),
    settings={
        "concept": {"prior": {"count": 200}},
        "train": {"optimizer": {"name": "adamw", "lr": 1e-5}},
    },
)
