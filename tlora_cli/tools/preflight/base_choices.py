"""Settings of a recipe beside what its base's files say: what it predicts, how it is drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tlora_cli.families import FAMILIES, Family
from tlora_cli.families.loading import Base
from tlora_cli.families.single_file_facts import look_into, scheduler_settings
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import expanded
from tlora_cli.recipe.models import Recipe
from tlora_cli.tools.preflight.findings import Finding, of_error, warning
from tlora_cli.training.from_recipe import base_of


def look_at_choices(recipe: Recipe) -> Iterator[Finding]:
    """Yield where the recipe and the base's scheduler don't agree; nothing if it is not here."""
    family = FAMILIES[recipe.family]
    config = _scheduler_of(family, base_of(recipe))
    said, wanted = config.get("prediction_type"), recipe.train.objective
    if said and wanted in family.prediction_types and wanted != said:
        yield warning(
            "base",
            f"the base's files say that it predicts {said}, but train.objective is {wanted}",
            "set train.objective: auto, unless you know better than the files",
        )
    try:
        if config:
            family.sampler(recipe.sampling.scheduler, config)
    except UserError as error:
        yield of_error("base", error)


def _scheduler_of(family: Family, base: Base) -> Mapping[str, Any]:
    """Return the configuration of a base's scheduler as it will be loaded; empty if unknown."""
    folder = expanded(base.config or "") if base.is_file else base.path
    if folder is None:
        return {}
    try:
        text = (folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8")
        config: dict[str, Any] = dict(json.loads(text))
        file = expanded(base.model)
        if base.is_file and file.suffix.lower() == ".safetensors":
            config |= scheduler_settings(family, look_into(file))
    except (OSError, ValueError, TypeError, UserError):  # told where the base is looked at
        return {}
    return config
