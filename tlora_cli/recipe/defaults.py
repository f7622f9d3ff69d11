"""What a recipe leaves out: the settings of its family, method, base and card, merged.

Published settings: T-LoRA, arXiv 2507.05964, section 5 and the code released with it.
"""

from __future__ import annotations

from typing import Any

from tlora_cli.foundation.bundled import bundle_of_base
from tlora_cli.recipe.strict_section import MASKED_METHODS, RANKLESS_METHODS

FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    "sdxl": {"sampling": {"steps": 25, "guidance": 5.0}},
    "flux": {
        "adapter": {"rank": 32},
        "train": {"optimizer": {"name": "prodigy"}, "max_grad_norm": 1.0},
        "sampling": {"steps": 28, "guidance": 3.5},
    },
}
"""Published settings of a family where they differ from the models' own defaults."""

PUBLISHED_STEPS = {
    "sdxl": {
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
    "flux": {"lora": 400, "vanilla_tlora": 500, "ortho_lora": 400, "tlora": 500},
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


def published_settings(family: str, method: str, base: str | None = None) -> dict[str, Any]:
    """Return the published settings of a family and method, to lie under the user's own.

    Args:
        family: of the base.
        method: of the adapter.
        base: name of the base model; one of a bundle has settings of its own.
    """
    settings = merged(METHOD_DEFAULTS.get(method, {}), FAMILY_DEFAULTS.get(family, {}))
    steps = PUBLISHED_STEPS.get(family, {}).get(method)
    if steps is not None:
        settings = merged({"train": {"steps": steps}}, settings)
    if family == "flux" and method in MASKED_METHODS:
        settings = merged({"adapter": {"min_rank": 1}}, settings)
    if base and (bundle := bundle_of_base(base)):
        settings = merged(settings, bundle.settings(base, method))
    if method in RANKLESS_METHODS:
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
