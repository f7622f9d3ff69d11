"""Devices: where and in which number format to compute, and what a device can do.

No other module asks for "cuda" or calls `torch.cuda`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.gpu_only import check_gpu
from tlora_cli.foundation.number_formats import TORCH_NAMES

DTYPES: dict[str, torch.dtype] = {key: getattr(torch, name) for key, name in TORCH_NAMES.items()}
"""Number format by the name of a precision."""
FILE_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in TORCH_NAMES.values()}
"""Number format by the name that `output.dtype` has for it."""
ACCELERATOR = "cuda"
"""The kind of accelerator that is supported, as recipes and PyTorch name it."""


def has_accelerator() -> bool:
    """Return whether PyTorch can compute on a GPU here."""
    return torch.cuda.is_available()


def count_accelerators() -> int:
    """Return how many GPUs PyTorch can compute on."""
    return torch.cuda.device_count()


def default_device() -> torch.device:
    """Return what `auto` means: the GPU if there is one, else the CPU."""
    return torch.device(ACCELERATOR if has_accelerator() else "cpu")


def named_device(name: str) -> torch.device:
    """Return the device of a recipe's `auto`, `cpu` or `cuda`, there or not."""
    return default_device() if name == "auto" else torch.device(name)


def choose_device(
    name: str, precision: str, quantization: str | None = None, *, offload: bool = False
) -> torch.device:
    """Return the device of a recipe.

    Raises:
        UserError: if it is not there, or can't compute in the precision.
    """
    if name == ACCELERATOR and not has_accelerator():
        raise UserError(
            "no CUDA GPU was found",
            where="device",
            do="check the driver with nvidia-smi, or use device: auto",
            kind=Status.MISSING,
        )
    device = named_device(name)
    on_gpu = is_accelerator(device)
    check_gpu("train.quantization", quantization, on_gpu)
    check_gpu("train.precision", precision, on_gpu)
    check_gpu("train.offload", offload, on_gpu)
    if on_gpu and precision == "bf16" and not supports_bf16():
        raise UserError(
            "this GPU does not support bf16",
            where="precision",
            do="use fp16 or fp32",
            kind=Status.MISSING,
        )
    return device


# --- what a device can do -------------------------------------------------------------------------


def is_accelerator(device: torch.device) -> bool:
    """Return whether it is a GPU: it works beside the host, and has memory of its own."""
    return device.type == ACCELERATOR


def supports_bf16(in_hardware: bool = False) -> bool:
    """Return whether the GPU computes bf16; `in_hardware` leaves out those that emulate it."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=not in_hardware))


def has_fused_optimizers(device: torch.device) -> bool:
    """Return whether PyTorch's optimizers update all tensors in one operation there."""
    return device.type in ("cpu", ACCELERATOR)


def device_name(device: torch.device) -> str:
    """Return the name of a GPU's model, or `cpu`."""
    return torch.cuda.get_device_name(device) if is_accelerator(device) else device.type


def gpu_properties() -> Any:
    """Return what PyTorch knows of the first GPU: `name`, `total_memory` and, if it can, `uuid`."""
    return torch.cuda.get_device_properties(0)


def gpu_capability() -> tuple[int, int]:
    """Return the compute capability of the first GPU."""
    return torch.cuda.get_device_capability(0)


def compiled_capabilities() -> set[int]:
    """Return the compute capabilities, without their second number, that PyTorch has code for."""
    names = [name for name in torch.cuda.get_arch_list() if name.startswith("sm_")]
    return {int(name.removeprefix("sm_").rstrip("af")) // 10 for name in names}


def gpu_failure() -> str:
    """Return why PyTorch can't use a GPU."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).partition("\n")[0]
    return "it finds none"


# --- memory ---------------------------------------------------------------------------------------


def peak_memory(device: torch.device) -> int:
    """Return the most bytes so far: PyTorch's on a GPU, the process's on a CPU."""
    if is_accelerator(device):
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        peak: int = psutil.Process().memory_info().peak_wset
        return peak
    # psutil knows no peak on other systems. On Linux, getrusage counts what the parent had when it
    # forked, too; some containers' /proc doesn't say.
    status = Path("/proc/self/status")
    lines = status.read_text("ascii").splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource  # not on Windows

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def release_memory() -> None:
    """Give memory that PyTorch keeps for later back to the GPU, if there is one."""
    if has_accelerator():
        torch.cuda.empty_cache()


def restart_peak(device: torch.device) -> None:
    """Count a GPU's peak memory anew."""
    if is_accelerator(device):
        torch.cuda.reset_peak_memory_stats()


@contextmanager
def memory_explained(advice: str) -> Iterator[None]:
    """Turn a GPU that runs out of memory into a UserError with advice."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            "the GPU ran out of memory", where=_memory(), do=advice, kind=Status.NO_ROOM
        ) from error


def _memory() -> str:
    free, total = torch.cuda.mem_get_info() if has_accelerator() else (0, 0)
    return f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"


# --- copies for which the host doesn't wait -------------------------------------------------------


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on the device; the host does not wait until it is there."""
    if tensor.device == device:
        return tensor
    if is_accelerator(device):
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@dataclass
class HostCopy:
    """A tensor on its way to the host.

    Attributes:
        values: on the host; to be read when `event` is reached.
        event: that the device reaches when the copy is whole; None if it is already.
    """

    values: Tensor
    event: torch.cuda.Event | None = None

    def arrived(self) -> bool:
        """Return whether the values can be read without waiting."""
        return self.event is None or bool(self.event.query())  # type: ignore[no-untyped-call]

    def read(self) -> list[float]:
        """Return the values; wait for them if they have not arrived."""
        if self.event is not None and not self.arrived():
            self.event.synchronize()
        numbers: list[float] = self.values.tolist()
        return numbers


def copy_to_host(tensor: Tensor) -> HostCopy:
    """Begin to copy a tensor to the host, which does not wait."""
    if not is_accelerator(tensor.device):
        return HostCopy(tensor)
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copied = pinned.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return HostCopy(copied, event)


class HostCopies:
    """Copies of tensors to the host, which waits once for all of them.

    A device makes them one after the other, among what else it was told to do, so a tensor may be
    changed or dropped as soon as its copy has begun.
    """

    def __init__(self) -> None:
        self._devices: set[torch.device] = set()

    def begin(self, tensor: Tensor) -> Tensor:
        """Return the tensor on the host, detached and contiguous: read it only after `wait`."""
        tensor = tensor.detach()
        if not is_accelerator(tensor.device):
            return tensor.contiguous()
        self._devices.add(tensor.device)
        values = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return values.copy_(tensor, non_blocking=True)

    def wait(self) -> None:
        """Wait until all are whole."""
        for device in self._devices:
            wait_for(device)
        self._devices.clear()


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    torch.cuda.current_stream(device).synchronize()


def on_host(value: Any) -> Any:
    """Return a value with its tensors on the host, in dicts, lists and tuples; waits once."""
    copies = HostCopies()

    def moved(one: Any) -> Any:
        if isinstance(one, Tensor):
            return copies.begin(one)
        if isinstance(one, dict):
            return {key: moved(inner) for key, inner in one.items()}
        return type(one)(map(moved, one)) if type(one) in (list, tuple) else one

    there = moved(value)
    copies.wait()
    return there


class CopyStream:
    """Copies memory of the host to a device, beside what the device computes.

    Where the device does not work beside the host, as a CPU, each copy is whole at once.

    Args:
        device: where the copies go.
    """

    def __init__(self, device: torch.device) -> None:
        beside = is_accelerator(device)
        self._stream = torch.cuda.Stream(device) if beside else None  # type: ignore[no-untyped-call]

    @staticmethod
    def pins(device: torch.device) -> bool:
        """Return whether memory of the host must be pinned, so that nothing waits for a copy."""
        return is_accelerator(device)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Begin to copy, after all that the device was told to do with the target so far."""
        if self._stream is None:
            target.copy_(source)
            return
        self._stream.wait_stream(torch.cuda.current_stream(target.device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)

    def wait(self) -> None:
        """Let what the device is told next wait until the copies are whole."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)


def record_graph(run: Callable[[], None]) -> Callable[[], None]:
    """Record a run as a CUDA graph, after three runs that let libraries choose their kernels."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
