"""Names of number formats and devices, as recipes and options spell them; `devices` has torch's."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]
"""Formats to compute in: `train.precision` and the options of the same name."""
FileFormat = Literal["float32", "float16", "bfloat16"]
"""Formats of an adapter file: `output.dtype`. These are PyTorch's own names."""

TORCH_NAMES: dict[Precision, FileFormat] = {
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
}
"""Short spelling -> the other. All tables of number formats are made from this one."""

QUANTIZATIONS = ("none", "nf4", "int8")
"""Formats that the base's weights can be stored in; none: as they are."""
DEVICES = ("auto", "cpu", "cuda")
"""Places to compute; auto: on the GPU if there is one."""
