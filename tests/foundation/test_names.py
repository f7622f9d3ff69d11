"""Names in the recipe, which imports no torch, are those of the code they select."""

from __future__ import annotations

from typing import Any, get_args

import torch

from tlora_cli.foundation.devices import DTYPES, FILE_DTYPES
from tlora_cli.foundation.number_formats import Precision
from tlora_cli.recipe.models import OutputConfig
from tlora_cli.recipe.train_sections import OptimizerConfig
from tlora_cli.training.optimizers import STATE_COPIES


def names(section: Any, field: str) -> set[str]:
    return set(get_args(section.model_fields[field].annotation))


def test_formats_optimizers_and_samplers() -> None:
    assert set(get_args(Precision)) == set(DTYPES)
    assert names(OutputConfig, "dtype") == set(FILE_DTYPES)
    assert {str(dtype) for dtype in FILE_DTYPES.values()} == {f"torch.{n}" for n in FILE_DTYPES}
    assert names(OptimizerConfig, "name") == set(STATE_COPIES)
    assert all(isinstance(dtype, torch.dtype) for dtype in DTYPES.values())
