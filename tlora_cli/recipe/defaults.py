"""Settings that a recipe leaves out: those of its family, method, base and card, merged.

Published settings: T-LoRA, arXiv 2507.05964, section 5 and the code released with it.
"""

from __future__ import annotations

from typing import Any

from tlora_cli.families import FAMILIES
from tlora_cli.families.flux import FLUX
from tlora_cli.families.sdxl import SDXL
from tlora_cli.foundation.bundled import bundle_of_base
from tlora_cli.recipe.strict_section import MASKED_METHODS, RANKLESS_METHODS

PUBLISHED_STEPS = {
    SDXL.name: {
        "lora": 500,
        "vanilla_tlora": 500,
        "ortho_lora": 800,
        "tlora": 800,
        "pissa": 500,
        "adalora": 500,
        "oft": 800,
        "oft_v2": 800,
        "gsoft": 800,
        "gsoft_double": 800,
        "svdiff": 1600,
        "dreambooth": 2000,
        "dreambooth_full": 2000,
        "custom_diffusion": 500,
        "textual_inversion": 500,
    },
    FLUX.name: {"lora": 400, "vanilla_tlora": 500, "ortho_lora": 400, "tlora": 500},
}
"""Optimizer steps by family and method (T-LoRA, section 5; on FLUX only LoRA's and T-LoRA's are
published: the masked methods take the one, the others the other). PiSSA and AdaLoRA, which it does
not run, take LoRA's."""

METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "svdiff": {"train": {"optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01}}},
    "dreambooth": {"train": {"optimizer": {"name": "adamw", "lr": 2e-5}}},
    "dreambooth_full": {"train": {"optimizer": {"name": "adamw", "lr": 2e-5}}},
    "custom_diffusion": {
        "concept": {"prior": {"count": 200}},
        "train": {"optimizer": {"name": "adamw", "lr": 1e-5}},
    },
    "textual_inversion": {"train": {"optimizer": {"name": "adamw", "lr": 5e-4}}},
}
"""Published settings of a method where they differ from LoRA's (T-LoRA, section 5)."""


def published_settings(family: str, method: str, base: str | None = None) -> dict[str, Any]:
    """Return the published settings of a family and method, to lie under the user's own.

    Args:
        family: of the base.
        method: of the adapter.
        base: name of the base model; one of a bundle has settings of its own.
    """
    kind = FAMILIES.get(family)
    settings = merged(METHOD_DEFAULTS.get(method, {}), dict(kind.defaults) if kind else {})
    steps = PUBLISHED_STEPS.get(family, {}).get(method)
    if steps is not None:
        settings = merged({"train": {"steps": steps}}, settings)
    if kind is not None and method in MASKED_METHODS:
        settings = merged(dict(kind.masked_defaults), settings)
    if base and (bundle := bundle_of_base(base)):
        settings = merged(settings, bundle.settings(base, method))
    if method in RANKLESS_METHODS:
        ranks = ("rank", "min_rank")
        own = {k: v for k, v in settings.get("adapter", {}).items() if k not in ranks}
        settings = {**settings, "adapter": own}
    return settings


def memory_preset(family: str, card: str) -> dict[str, Any]:
    """Return the settings of `train` with which a family fits a card of a size, such as 24gb."""
    kind = FAMILIES.get(family)
    return dict(kind.memory_presets.get(card, {})) if kind else {}


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
