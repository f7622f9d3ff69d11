"""Names in the recipe, which imports no torch, are those of the code they select."""

from __future__ import annotations

from typing import Any, get_args

import torch

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.devices import DTYPES
from tlora_cli.recipe import section as recipe_base
from tlora_cli.recipe.models import FLOW_SCHEDULERS, OutputConfig, SamplingConfig
from tlora_cli.recipe.sections import OptimizerConfig
from tlora_cli.training.loop import FILE_DTYPES
from tlora_cli.training.optimizers import STATE_COPIES


def names(section: Any, field: str) -> set[str]:
    return set(get_args(section.model_fields[field].annotation))


def test_families() -> None:
    assert set(get_args(recipe_base.FamilyName)) == set(FAMILIES)


def test_formats_optimizers_and_samplers() -> None:
    assert set(get_args(recipe_base.Precision)) == set(DTYPES)
    assert names(OutputConfig, "dtype") == set(FILE_DTYPES)
    assert {str(dtype) for dtype in FILE_DTYPES.values()} == {f"torch.{n}" for n in FILE_DTYPES}
    assert names(OptimizerConfig, "name") == set(STATE_COPIES)
    assert names(SamplingConfig, "scheduler") == set(FAMILIES["sdxl"].samplers)
    assert set(FLOW_SCHEDULERS) == set(FAMILIES["flux"].samplers)
    assert all(isinstance(dtype, torch.dtype) for dtype in DTYPES.values())
