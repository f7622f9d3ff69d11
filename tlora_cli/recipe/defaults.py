"""Settings that a recipe leaves out: those of its family, method, base and card, merged.

Published settings: T-LoRA, arXiv 2507.05964, section 5 and the code released with it.
"""

from __future__ import annotations

from typing import Any

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.bundled import bundle_of_base
from tlora_cli.methods import DEFAULT, METHODS


def chosen_method(family: str, adapter: object = None) -> str:
    """Return the method that a recipe's `adapter` names, or else the family's own.

    Args:
        family: of the base; one that is not known has the paper's method.
        adapter: the section as it was read, whatever that is.
    """
    named = adapter.get("method") if isinstance(adapter, dict) else None
    kind = FAMILIES.get(family)
    return str(named or (kind.default_method if kind else DEFAULT))


def published_settings(family: str, method: str, base: str | None = None) -> dict[str, Any]:
    """Return the published settings of a family and method, to lie under the user's own.

    Args:
        family: of the base.
        method: of the adapter.
        base: name of the base model; one of a bundle has settings of its own.
    """
    kind, known = FAMILIES.get(family), METHODS.get(method)
    settings = merged(dict(known.settings) if known else {}, dict(kind.defaults) if kind else {})
    if known and family in known.steps:
        settings = merged({"train": {"steps": known.steps[family]}}, settings)
    if kind and known and known.masked:
        settings = merged(dict(kind.masked_defaults), settings)
    if base and (bundle := bundle_of_base(base)):
        settings = merged(settings, bundle.settings(base, method))
    if known and not known.low_rank:
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
