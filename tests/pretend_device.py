"""An accelerator for machines that have none: what fails on a card fails on it.

Its tensors keep their values on the CPU, so every result is the real one. But an operation that
mixes them with tensors of the CPU fails, as on a card, and so does `numpy`; each time that the host
would wait for the device (`item`, `tolist`, `nonzero`, a copy to the CPU) is counted with the place
in the program that asks. `install` makes it the accelerator that tlora finds, before anything else
of tlora is imported: `tests/fork_server.py` does so in a process of its own.

It rests on torch's backends in Python for PrivateUse1. It can't see what kernels, streams, pinned
memory, CUDA graphs, Triton and bitsandbytes do, what a card rounds in another way, and how much
memory it has; nor can it run `train.offload`, which gives parameters of the CPU a card's memory.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import traceback
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "pretend"
"""The kind of device, in place of `cuda`."""
WAITS_FILE = "TLORA_PRETEND_WAITS"
"""Variable with the file that a process writes its waits into at its end."""
WAITS: Counter[str] = Counter()
"""Place in the program -> how often the host waited there."""

_WAITING = {
    *("_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero"),
    *("unique", "_unique2"),
}
_COPYING = {"_to_copy", "copy_", "_pin_memory", "is_pinned", "set_"}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_LAZY = {"_conj": torch.ops.aten.conj_physical.default, "_neg_view": torch.ops.aten.neg.default}
"""What torch notes in a bit of a tensor, which is not looked at below a dispatch mode."""
_LIBRARIES = ("tlora_cli", "diffusers", "transformers")


class Backend(_DummyBackendModule):
    """What torch asks a device's module for."""

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        """Return the CPU's state: the values lie there."""
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        """Set the CPU's state."""
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Return the formats of autocast."""
        return [torch.float16, torch.bfloat16]

    def synchronize(self, *_: Any) -> None:
        """Wait for nothing."""

    def empty_cache(self) -> None:
        """Keep nothing."""

    def manual_seed(self, seed: int) -> None:
        """Leave the CPU's numbers as they are."""


class OnDevice(torch.Tensor):
    """A tensor of the device; `inner` has its values, on the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnDevice:
        tensor: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
            requires_grad=False,
        )
        tensor.inner = inner
        return tensor

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"OnDevice({self.inner})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A file holds plain tensors, as it does of a card's.
        _wait("saved")
        return self.inner.__reduce_ex__(protocol)

    def tolist(self) -> Any:
        """Return the values; the host waits."""
        _wait("tolist")
        return self.inner.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        """Fail, as a tensor of a card does."""
        raise TypeError(f"can't convert {NAME}:0 tensor to numpy, use .cpu() first; {_place()}")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Mode(TorchDispatchMode):
    """Takes what has no tensor of the device among its arguments, such as `torch.zeros`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _place() -> str:
    frames = [f for f in traceback.extract_stack() if any(n in f.filename for n in _LIBRARIES)]
    return " < ".join(f"{Path(f.filename).name}:{f.name}" for f in frames[-1:-4:-1])


def _wait(what: str) -> None:
    WAITS[f"{what} at {_place()}"] += 1


def _non_blocking(args: Any, kwargs: Any) -> bool:
    return bool(kwargs.get("non_blocking", args[2] if len(args) > 2 else False))


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    flat, _ = tree_flatten((args, kwargs))
    tensors = [one for one in flat if isinstance(one, torch.Tensor)]
    ours = [one for one in tensors if isinstance(one, OnDevice)]
    others = [one for one in tensors if not isinstance(one, OnDevice) and one.dim() > 0]
    name = func._schema.name.split("::")[-1]
    # As CUDA, it takes indices from the CPU.
    indexed = name in _INDEXING and isinstance(args[0], OnDevice)
    if ours and others and name not in _COPYING and not indexed:
        shapes = [tuple(one.shape) for one in others]
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {func} with {shapes} of the CPU "
            f"at {_place()}"
        )
    on_device = bool(ours)
    if ours and name in _WAITING:
        _wait(name)
    if (device := kwargs.get("device")) is not None:
        on_device = torch.device(device).type == NAME
        if ours and torch.device(device).type == "cpu":
            _wait(f"{name} to the CPU")
        if on_device:
            kwargs = {**kwargs, "device": torch.device("cpu")}
    if name == "copy_":
        on_device = isinstance(args[0], OnDevice)
        if ours and not on_device and not _non_blocking(args, kwargs):
            _wait("copy_ to the CPU")
    if kwargs.get("pin_memory"):
        kwargs = {**kwargs, "pin_memory": False}

    def unwrap(one: Any) -> Any:
        return one.inner if isinstance(one, OnDevice) else one

    func = _LAZY.get(name, func)
    result = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    known = {id(one.inner): one for one in ours} if func._schema.is_mutable else {}

    def wrap(one: Any) -> Any:
        if id(one) in known:
            return known[id(one)]
        return OnDevice(one) if isinstance(one, torch.Tensor) and on_device else one

    return tree_map(wrap, result)


def _empty_strided(
    size: Any,
    stride: Any,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> OnDevice:
    return OnDevice(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))


def _copy_from(source: Any, target: Any, non_blocking: bool = False) -> Any:
    inner = [one.inner if isinstance(one, OnDevice) else one for one in (source, target)]
    inner[1].copy_(inner[0])
    return target


def install() -> None:
    """Make it the accelerator, for this process and its forks."""
    global _kernels
    from tlora_cli.foundation import devices

    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _setup_privateuseone_for_python_backend(NAME, Backend())
    # What C++ calls beside the mode, as where a list of Python indexes a tensor.
    _kernels = torch.library.Library("aten", "IMPL")
    _kernels.impl("empty_strided", _empty_strided, "PrivateUse1")
    _kernels.impl("_copy_from", _copy_from, "PrivateUse1")
    Mode().__enter__()

    class CopyStream(devices.CopyStream):
        def __init__(self, device: torch.device) -> None:
            self._stream = None

        @staticmethod
        def pins(device: torch.device) -> bool:
            return False

    replaced: dict[str, Any] = {
        "ACCELERATOR": NAME,
        "has_accelerator": lambda: True,
        "count_accelerators": lambda: 1,
        "supports_bf16": lambda in_hardware=False: True,
        "device_name": lambda device: "Pretend card" if device.type == NAME else device.type,
        "gpu_properties": lambda: SimpleNamespace(name="Pretend card", total_memory=24 * 10**9),
        "gpu_capability": lambda: (9, 0),
        "compiled_capabilities": lambda: {9},
        "gpu_failure": lambda: "",
        "peak_memory": lambda device: 10**9,
        "release_memory": lambda: None,
        "restart_peak": lambda device: None,
        "wait_for": lambda device: _wait("wait_for"),
        "to_device": lambda tensor, device: tensor.to(device),
        # The host doesn't wait for such a copy, so nothing is counted.
        "CopyStream": CopyStream,
        "copy_to_host": lambda tensor: devices.HostCopy(getattr(tensor, "inner", tensor).clone()),
    }
    for name, value in replaced.items():
        assert hasattr(devices, name), name
        setattr(devices, name, value)
    local = importlib.import_module("tlora_cli.comparison.local")
    local.START_METHOD = "fork"  # a new interpreter would know nothing of the device


def write_waits() -> None:
    """Write the waits of this process, if a file for them is named."""
    if file := os.environ.get(WAITS_FILE):
        Path(file).write_text(json.dumps(dict(WAITS.most_common())), "utf-8")


atexit.register(write_waits)
