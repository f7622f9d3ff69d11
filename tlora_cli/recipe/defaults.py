"""What a recipe leaves out: the settings of its family, method, base and card.

Published settings: T-LoRA, arXiv 2507.05964, section 5 and the code released with it.
"""

from __future__ import annotations

from typing import Any

from tlora_cli.methods import METHODS

FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    "sdxl": {"sampling": {"steps": 25, "guidance": 5.0}},
    "flux": {
        "adapter": {"rank": 32},
        "train": {"optimizer": {"name": "prodigy"}, "max_grad_norm": 1.0},
        "sampling": {"steps": 28, "guidance": 3.5},
    },
}
"""Published settings of a family where they differ from the models' own defaults."""
MASKED_DEFAULTS: dict[str, dict[str, Any]] = {"flux": {"adapter": {"min_rank": 1}}}
"""Further ones of methods whose rank follows a schedule; the family says them, too."""

_CHECKPOINTED = {"gradient_checkpointing": True}
MEMORY_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "sdxl": {"24gb": {}, "16gb": {}, "12gb": _CHECKPOINTED},
    "flux": {
        "24gb": {**_CHECKPOINTED, "quantization": "int8"},
        "16gb": {**_CHECKPOINTED, "quantization": "nf4"},
        "12gb": {**_CHECKPOINTED, "quantization": "nf4", "resolution": 768},
    },
}
"""Family -> size of the card -> settings of `train` that fit it, by `memory.plan_memory`."""


def _toy(lr: float) -> dict[str, Any]:
    return {
        "adapter": {"rank": 16},
        "train": {
            "resolution": 64,
            "precision": "fp32",
            "optimizer": {"name": "adamw", "lr": lr},
        },
        "sampling": {"steps": 20, "guidance": 3.5},
    }


_TOY_STEPS = 400
_TOY_RATES = {
    "toy-sdxl": {
        "lora": 3e-4,
        "vanilla_tlora": 3e-4,
        "ortho_lora": 1e-3,
        "tlora": 1e-3,
        "pissa": 3e-4,
        "adalora": 1e-2,
        "oft": 1e-3,
        "oft_v2": 3e-3,
        "gsoft": 1e-3,
        "gsoft_double": 3e-4,
        "svdiff": 1e-2,
        "dreambooth": 3e-4,
        "dreambooth_full": 1e-4,
        "custom_diffusion": 1e-3,
        "textual_inversion": 3e-3,
    },
    "toy-flux": {"lora": 1e-3, "vanilla_tlora": 1e-3, "ortho_lora": 3e-3, "tlora": 3e-3},
}
"""Learning rates by built-in base and method: configs/compare_rates_toy.yaml and scripts/toyworld
find them, docs/toyworld.md says how. An orthogonal start needs about three times LoRA's."""
_TOY_OWN: dict[str, dict[str, Any]] = {
    "custom_diffusion": {"concept": {"prior": {"count": 50}}},
    **{m: {"adapter": {"blocks": 16}} for m in ("oft", "oft_v2", "gsoft", "gsoft_double")},
}
"""What suits small layers: drawing 200 class pictures takes longer than training, and 16 blocks of
a layer 128 wide have about the published share of LoRA's parameters (OFT 11%, GSOFT 25%)."""


def _toy_methods(base: str) -> dict[str, dict[str, Any]]:
    return {
        method: {
            "train": {"steps": _TOY_STEPS, "optimizer": {"name": "adamw", "lr": rate}},
            **_TOY_OWN.get(method, {}),
        }
        for method, rate in _TOY_RATES[base].items()
    }


BASE_DEFAULTS: dict[str, dict[str, Any]] = {
    base: _toy(rates["lora"]) for base, rates in _TOY_RATES.items()
}
"""Settings of the built-in bases, over the published ones."""
BASE_METHOD_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    base: _toy_methods(base) for base in _TOY_RATES
}
"""Settings of a method on a built-in base, over those of the base."""


def published_settings(family: str, method: str, base: str | None = None) -> dict[str, Any]:
    """Return the published settings of a family and method, to lie under the user's own.

    Args:
        family: of the base.
        method: of the adapter.
        base: name of the base model; a built-in one has settings of its own.
    """
    known = METHODS.get(method)
    settings = merged(dict(known.settings) if known else {}, FAMILY_DEFAULTS.get(family, {}))
    if known and family in known.steps:
        settings = merged({"train": {"steps": known.steps[family]}}, settings)
    if known and known.masked:
        settings = merged(MASKED_DEFAULTS.get(family, {}), settings)
    settings = merged(settings, BASE_DEFAULTS.get(base or "", {}))
    settings = merged(settings, BASE_METHOD_DEFAULTS.get(base or "", {}).get(method, {}))
    if known and not known.low_rank:
        ranks = ("rank", "min_rank")
        own = {k: v for k, v in settings.get("adapter", {}).items() if k not in ranks}
        settings = {**settings, "adapter": own}
    return settings


def merged(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return `given` with the missing keys of `defaults`, section by section.

    A section of another `name`, such as another optimizer, takes nothing from the defaults.
    """
    result = dict(given)
    for key, value in defaults.items():
        if key not in result:
            result[key] = value
        elif isinstance(value, dict) and isinstance(result[key], dict):
            same = result[key].get("name", value.get("name")) == value.get("name")
            result[key] = merged(value, result[key]) if same else result[key]
    return result
