"""Devices, and the number formats they compute in."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.number_formats import TORCH_NAMES

DTYPES: dict[str, torch.dtype] = {key: getattr(torch, name) for key, name in TORCH_NAMES.items()}
"""Number format by the name of a precision."""
FILE_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in TORCH_NAMES.values()}
"""Number format by the name that `output.dtype` has for it."""


def choose_device(name: str, precision: str, quantization: str | None = None) -> torch.device:
    """Return the device of a recipe.

    Raises:
        UserError: if it is not there, or can't compute in the precision.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise UserError(
            "no CUDA GPU was found",
            where="device",
            do="check the driver with nvidia-smi, or use device: auto",
        )
    device = torch.device("cuda" if found and name != "cpu" else "cpu")
    if device.type == "cpu" and quantization:
        raise UserError(
            f"quantization {quantization} needs a CUDA GPU",
            where="quantization",
            do="drop it, or run on a GPU",
        )
    if device.type == "cpu" and precision == "fp16":
        raise UserError("fp16 needs a GPU", where="precision", do="use fp32 or bf16 on a CPU")
    if device.type == "cuda" and precision == "bf16" and not torch.cuda.is_bf16_supported():
        raise UserError("this GPU does not support bf16", where="precision", do="use fp16 or fp32")
    return device


def device_name(device: torch.device) -> str:
    """Return the name of a GPU's model, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_memory(device: torch.device) -> int:
    """Return the most bytes so far: PyTorch's on a GPU, the process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # On Linux, getrusage counts what the parent had when it forked, too; some containers' /proc
    # doesn't say.
    status = Path("/proc/self/status")
    lines = status.read_text("ascii").splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


@contextmanager
def memory_explained(advice: str) -> Iterator[None]:
    """Turn a GPU that runs out of memory into a UserError with advice."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError("the GPU ran out of memory", where=_memory(), do=advice) from error


def _memory() -> str:
    free, total = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
    return f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
