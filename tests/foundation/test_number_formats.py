"""Names of number formats in recipes are those of PyTorch."""

from __future__ import annotations

from typing import get_args

import torch

from tlora_cli.foundation.devices import DTYPES, FILE_DTYPES
from tlora_cli.foundation.number_formats import FileFormat, Precision


def test_every_name_has_its_format() -> None:
    assert set(get_args(Precision)) == set(DTYPES)
    assert set(get_args(FileFormat)) == set(FILE_DTYPES)
    assert {str(dtype) for dtype in FILE_DTYPES.values()} == {f"torch.{n}" for n in FILE_DTYPES}
    assert all(isinstance(dtype, torch.dtype) for dtype in DTYPES.values())
