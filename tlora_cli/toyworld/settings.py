"""Recipe settings of the built-in bases, where they differ from the published ones."""

from __future__ import annotations

from typing import Any

STEPS = 400
RATES: dict[str, dict[str, float]] = {
    "toy-sdxl": {
        "lora": 1e-4,
        "vanilla_tlora": 1e-4,
        "ortho_lora": 3e-4,
        "tlora": 3e-4,
        "pissa": 1e-4,
        "adalora": 3e-3,
        "oft": 3e-4,
        "oft_v2": 1e-3,
        "gsoft": 3e-4,
        "gsoft_double": 1e-4,
        "svdiff": 3e-3,
        "dreambooth": 1e-4,
        "dreambooth_full": 3e-5,
        "custom_diffusion": 3e-4,
        "textual_inversion": 3e-3,
    },
    "toy-flux": {"lora": 3e-4, "vanilla_tlora": 1e-3, "ortho_lora": 1e-3, "tlora": 2e-3},
}
"""Learning rates by base and method: configs/compare_rates_toy.yaml and scripts/toyworld find them,
docs/toyworld.md says how, and which were searched on which version of a base. An orthogonal start
needs about three times LoRA's."""

PHOTO_STEPS = {"toy-sdxl": 1300, "toy-flux": 1000}
PHOTO_RATES: dict[str, dict[str, float]] = {
    "toy-sdxl": {
        "lora": 3e-4,
        "vanilla_tlora": 3e-4,
        "ortho_lora": 1e-3,
        "tlora": 1e-3,
        "pissa": 3e-4,
        "adalora": 1e-2,
    },
    "toy-flux": {"lora": 1e-3, "vanilla_tlora": 2e-3, "ortho_lora": 3e-3, "tlora": 3e-3},
}
"""Rates of `recipe: photo`, which bears more; they fall to zero. docs/photo.md says how those of
LoRA and T-LoRA on toy-sdxl, and of LoRA and the schedule alone on toy-flux, were found; the others
are about three times those of the published recipe."""
PHOTO_WORD: dict[str, dict[str, float]] = {"toy-sdxl": {"word_lr": 3e-3, "word_share": 0.75}}
"""The word that `recipe: photo` learns first; docs/photo.md has the figures. On toy-flux it took
likeness away."""

BLOCKS = 16
"""Blocks of OFT and GSOFT: of a layer 128 wide so many have about the published share of LoRA's
parameters (OFT 11%, GSOFT 25%)."""
BLOCK_METHODS = ("oft", "oft_v2", "gsoft", "gsoft_double")
CLASS_PICTURES = 50
"""Class pictures of prior preservation: drawing the published 200 takes longer than training."""


def settings(base: str, method: str) -> dict[str, Any]:
    """Return the recipe settings of a built-in base and a method, over the published ones.

    A method whose rate was not searched takes LoRA's, and keeps its published number of steps.
    """
    rates = RATES[base]
    found: dict[str, Any] = {
        "adapter": {"rank": 16},
        "train": {
            "resolution": 64,
            "precision": "fp32",
            "optimizer": {"name": "adamw", "lr": rates.get(method, rates["lora"])},
        },
        "sampling": {"steps": 20, "guidance": 3.5},
    }
    if method not in rates:
        return found
    found["train"]["steps"] = STEPS
    if method in BLOCK_METHODS:
        found["adapter"]["blocks"] = BLOCKS
    if method == "custom_diffusion":
        found["concept"] = {"prior": {"count": CLASS_PICTURES}}
    return found


def photo_settings(base: str, method: str) -> dict[str, Any]:
    """Return the settings of `recipe: photo` for a low-rank method, over those of the method."""
    train: dict[str, Any] = {
        "steps": PHOTO_STEPS[base],
        "lr_schedule": {"name": "cosine"},
        "timesteps": {"distribution": "logit_normal"},
        **PHOTO_WORD.get(base, {}),
    }
    if rate := PHOTO_RATES.get(base, {}).get(method):
        train["optimizer"] = {"lr": rate}
    return {"adapter": {"targets": "linear"}, "train": train}
