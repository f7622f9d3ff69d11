"""The run of forward and backward passes: as they are, compiled, or recorded as a CUDA graph.

All three compute the same. A step of SDXL is some ten thousand small operations, so at tens of
milliseconds the host that starts them is what takes the time; docs/performance.md.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tlora_cli.families import Conditioning
from tlora_cli.foundation.devices import is_accelerator, record_graph
from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.gpu_only import check_gpu
from tlora_cli.injection.adapter import Adapter
from tlora_cli.recipe.models import Recipe
from tlora_cli.training.batch import Batch
from tlora_cli.training.step import Passes

COMPILE_FROM_STEPS = 3000
"""Shortest run on a CPU that is compiled by itself. With phrases there are four kinds of passes:
compiling toy-sdxl's blocks for them took 58 s on two cores and saved 20 ms of 147 ms a step, so it
pays from about 2,900 steps on."""


class Record(Protocol):
    """Run something once, remember what it did, and do it again whenever the answer is called."""

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        """Return what repeats `run`."""


def choose_execution(recipe: Recipe, device: torch.device) -> str:
    """Return what `train.execution: auto` means: eager or compile.

    A function of recipe and machine alone, so a resumed run computes as before, bit for bit.
    On a GPU it is eager: neither way was measured there.
    """
    train = recipe.train
    if train.execution != "auto":
        return train.execution
    worth = not is_accelerator(device) and train.steps * train.accumulation >= COMPILE_FROM_STEPS
    possible = not list(recipe.execution_problems("compile")) and missing_compiler(device) is None
    return "compile" if worth and possible else "eager"


def missing_compiler(device: torch.device) -> str | None:
    """Return what torch.compile lacks on this machine, or None."""
    if is_accelerator(device):
        return None if importlib.util.find_spec("triton") else "Triton"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "a C++ compiler such as g++"
    return None


def check_execution(execution: str, device: torch.device) -> None:
    """Raise a UserError if the machine lacks what a way of running takes."""
    if execution == "compile" and (lacking := missing_compiler(device)):
        raise UserError(
            f"compiling needs {lacking}, which was not found",
            where="train.execution",
            do="install it, or use execution: eager",
            kind=Status.MISSING,
        )
    check_gpu("train.execution", execution, is_accelerator(device))


def make_passes(
    execution: str,
    passes: Passes,
    denoiser: Any,
    adapter: Adapter | None,
    parameters: list[nn.Parameter],
    device: torch.device,
) -> Passes:
    """Return what runs the passes in the chosen way.

    Args:
        execution: `eager`, `compile` or `cuda_graph`.
        passes: forward and backward passes, as they are.
        denoiser: with the adapter on it.
        adapter: the adapter, if it is one of ours.
        parameters: that get gradients.
        device: where it computes.

    Raises:
        UserError: if the machine lacks what it takes.
    """
    check_execution(execution, device)
    if execution == "compile":
        # One kind of block at a time: a few seconds instead of minutes for the whole denoiser.
        denoiser.compile_repeated_blocks()
    elif execution == "cuda_graph":
        return Recorded(passes, parameters, record_graph)
    elif adapter is not None and (folding := adapter.folding(training=True)):

        def folded(batch: Batch) -> Tensor:
            with adapter.folded(folding):
                return passes(batch)

        return folded
    return passes


@contextmanager
def uncompiled() -> Iterator[None]:
    """Inside, compiled blocks run as they are: previews have other shapes, each compiled anew."""
    with torch.compiler.set_stance("force_eager"):
        yield


class Recorded:
    """Passes that are recorded once, on buffers that stay in place, and then repeated.

    Args:
        passes: forward and backward passes.
        parameters: that get gradients. These, too, are written into the same place each time, so
            they must not be set to None between steps, and nothing adds to them.
        record: records.
    """

    def __init__(self, passes: Passes, parameters: list[nn.Parameter], record: Record) -> None:
        self._passes, self._parameters, self._record = passes, parameters, record
        self._buffers: Batch | None = None
        self._losses: Tensor | None = None
        self._gradients: list[Tensor | None] = []
        self._repeat: Callable[[], None] | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Return the losses; the first call records."""
        if self._repeat is None:
            device = batch.latents.device
            self._buffers = on_tensors(batch, lambda tensor: tensor.to(device, copy=True))
            self._repeat = self._record(self._run)
            self._gradients = [parameter.grad for parameter in self._parameters]
        assert self._buffers is not None
        copy_into(self._buffers, batch)
        self._repeat()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        assert self._losses is not None
        return self._losses.clone()  # the next step writes over it

    def _run(self) -> None:
        assert self._buffers is not None
        for parameter in self._parameters:
            parameter.grad = None  # so that the backward pass writes instead of adding
        self._losses = self._passes(self._buffers)


def on_tensors(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """Return the batch with each tensor changed."""

    def each(texts: Conditioning) -> Conditioning:
        return {key: change(value) for key, value in texts.items()}

    classes, phrases = batch.class_conditioning, batch.phrase_conditioning
    return replace(
        batch,
        latents=change(batch.latents),
        noise=change(batch.noise),
        timesteps=change(batch.timesteps),
        conditioning=each(batch.conditioning),
        weight=None if batch.weight is None else change(batch.weight),
        class_conditioning=None if classes is None else each(classes),
        phrase_conditioning=None if phrases is None else each(phrases),
    )


def copy_into(buffers: Batch, batch: Batch) -> None:
    """Copy a batch into buffers of the same shapes; the host does not wait.

    Raises:
        ValueError: if one has a weight and the other has not, or shapes differ.
    """
    if (buffers.weight is None) != (batch.weight is None):
        raise ValueError("batches of a recorded step must all have a weight, or none")
    pairs = [
        (buffers.latents, batch.latents),
        (buffers.noise, batch.noise),
        (buffers.timesteps, batch.timesteps),
        *((buffer, batch.conditioning[key]) for key, buffer in buffers.conditioning.items()),
    ]
    for own, given in (
        (buffers.class_conditioning, batch.class_conditioning),
        (buffers.phrase_conditioning, batch.phrase_conditioning),
    ):
        if (own is None) != (given is None):
            raise ValueError("batches of a recorded step must all have the same texts")
        if own is not None and given is not None:
            pairs += [(buffer, given[key]) for key, buffer in own.items()]
    if buffers.weight is not None and batch.weight is not None:
        pairs.append((buffers.weight, batch.weight))
    for buffer, tensor in pairs:
        if buffer.shape != tensor.shape:
            raise ValueError(f"a recorded step has {buffer.shape}, this batch {tensor.shape}")
        buffer.copy_(tensor, non_blocking=True)
