"""The tensors of an adapter by what training does to them, as the files of a run hold them.

What is trained is in the adapter file of each checkpoint; what stays as it was at the start is
written once a run; what else training moves on is in the state of each checkpoint. All are given
under their keys in files, and are the adapter's own memory: what is written there is its new value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tlora_cli.formats.tlora_file import DOWN, PART, UP, key_of, write_trained
from tlora_cli.foundation.devices import on_host
from tlora_cli.injection.adapter import Adapter
from tlora_cli.injection.changes import Change, LowRankUpdate


def trained_tensors(adapter: Adapter) -> dict[str, Tensor]:
    """Return what is trained."""
    return _by_key(adapter, _trained)


def start_tensors(adapter: Adapter) -> dict[str, Tensor]:
    """Return what stays as it was at the start."""

    def constants(change: Change) -> dict[str, Tensor]:
        state = change.state_dict()
        return {f"{PART}{name}": state[name] for name in change.constants}

    return _by_key(adapter, constants)


def running_tensors(adapter: Adapter) -> dict[str, Tensor]:
    """Return what training moves on without a gradient, such as running statistics."""

    def running(change: Change) -> dict[str, Tensor]:
        known = {*change.constants, *dict(change.named_parameters())}
        state = change.state_dict()
        return {f"{PART}{name}": state[name] for name in state if name not in known}

    return _by_key(adapter, running)


def put(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Write saved tensors over an adapter's own.

    Raises:
        ValueError: if they are of another adapter.
    """
    if own.keys() != saved.keys():
        raise ValueError("the tensors are of another adapter")
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(saved[key])


def save_trained(adapter: Adapter, path: Path, start: str | None) -> None:
    """Write the file of a checkpoint, in fp32.

    It is a whole adapter file if that holds what is trained as it is (LoRA, or a method without
    ranks). Else it leaves out the start, and is read as `formats/checkpoint_file.py` says.

    Args:
        adapter: of the run.
        path: of the file.
        start: checksum of the start, which lies elsewhere; None if there is none.

    Raises:
        UserError: if the disk is full or can't be written.
    """
    changes = adapter.layers
    if all(not isinstance(one, LowRankUpdate) or _is_pair(one) for one in changes.values()):
        adapter.save(path)
        return
    kernels = {
        name: change.convolution.kernel
        for name, change in changes.items()
        if isinstance(change, LowRankUpdate) and change.convolution
    }
    write_trained(
        path,
        on_host(trained_tensors(adapter)),
        adapter.without_tensors(),
        timestep_scale=adapter.family.timestep_scale,
        start=start,
        kernels=kernels,
    )


def _by_key(
    adapter: Adapter, tensors_of: Callable[[Change], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    return {
        key_of(adapter.family, name, part): tensor
        for name, change in adapter.layers.items()
        for part, tensor in tensors_of(change).items()
    }


def _trained(change: Change) -> dict[str, Tensor]:
    if not isinstance(change, LowRankUpdate) or not _is_pair(change):
        state = change.state_dict()
        return {f"{PART}{name}": state[name] for name, _ in change.named_parameters()}
    down, up = (factor.detach() for factor in change.factors())
    if change.convolution is not None:
        down, up = change.convolution.stored(down, up)
    return {DOWN: down, UP: up}


def _is_pair(change: LowRankUpdate) -> bool:
    """Whether the pair of factors is itself what is trained, as in LoRA."""
    trained = list(change.parameters())
    if change.constants or len(trained) != 2:
        return False
    return all(any(factor is one for one in trained) for factor in change.factors())
