"""The memory plan of a run: its phases, and what each holds on the device.

Weights are counted from configurations, activations by running the true step on the meta device
(`live.py`). Model parts are loaded and freed in turn, so a card must hold the largest phase.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tlora_cli.families import FAMILIES, Family
from tlora_cli.families.shapes import random_conditioning, text_tokens
from tlora_cli.families.standard import (
    cast,
    latent_sides,
    masks_with_values,
    meta_denoiser,
    meta_vae,
    text_parameters,
)
from tlora_cli.families.vae import framed
from tlora_cli.foundation.bundled import is_base, model_folder
from tlora_cli.foundation.devices import DTYPES, FILE_DTYPES, is_accelerator, named_device
from tlora_cli.foundation.files import expanded
from tlora_cli.foundation.offloading import TURNS, repeated_blocks
from tlora_cli.injection.adapter import Adapter
from tlora_cli.injection.attach import attach
from tlora_cli.injection.changes import LowRankUpdate
from tlora_cli.injection.folded_weights import Folding
from tlora_cli.recipe.models import Recipe
from tlora_cli.tools.preflight.memory.live import LiveMemory, flash_attention
from tlora_cli.tools.preflight.memory.pages import pages_read
from tlora_cli.training.batch import Batch
from tlora_cli.training.from_recipe import sampling_settings
from tlora_cli.training.optimizers import STATE_COPIES
from tlora_cli.training.shape import largest_size
from tlora_cli.training.step import Loss

CUDA_CONTEXT = 600_000_000
"""Bytes that the driver and its kernels take on a GPU, which PyTorch doesn't count."""
SPARE = 1.05
"""The share that an allocator takes over what is asked of it."""
USABLE = 0.95
"""Share of a GPU that is there for one program; screens take the rest."""
NF4_BYTES = 0.5 + 4 / 64
"""Bytes of a weight: four bits, and an fp32 scale for 64."""


@dataclass(frozen=True)
class Phase:
    """Bytes on the device at the same time.

    Attributes:
        name: of the phase.
        parts: what there must be room for.
        pages: of files, beside it, on a CPU; the system takes them back when memory is short.
    """

    name: str
    parts: dict[str, int]
    pages: int = 0

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class MemoryPlan:
    """The phases of a run in order."""

    phases: list[Phase]

    @property
    def largest(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: phase.total)

    @property
    def peak(self) -> int:
        """Bytes of tensors at the peak, as `torch.cuda.max_memory_allocated` counts them."""
        return self.largest.total

    @property
    def seen(self) -> int:
        """Bytes at the peak with the pages of files, as the system counts a process's memory."""
        return max(phase.total + phase.pages for phase in self.phases)

    @property
    def card(self) -> int:
        """Bytes that a GPU must have free."""
        return math.ceil(self.peak * SPARE) + CUDA_CONTEXT

    def fits(self, size: int) -> bool:
        """Say whether it fits a GPU of `size` bytes, of which some are never free."""
        return self.card <= USABLE * size


def plan_memory(recipe: Recipe) -> MemoryPlan:
    """Compute the memory plan of a recipe; needs neither weights nor a GPU.

    A base that is a folder is read for its sizes; any other is taken to have the standard ones.

    Raises:
        UserError: if the folder's configuration can't be read, or the adapter doesn't fit the base.
    """
    train, family = recipe.train, FAMILIES[recipe.family]
    dtype, place = DTYPES[train.precision], folder_of(recipe.base.model)
    bare = planned_denoiser(recipe)
    denoiser = _weights(bare, train.quantization, dtype)
    if train.offload:
        sizes = [_weights(block, train.quantization, dtype) for block in repeated_blocks(bare)]
        denoiser -= sum(sizes) - TURNS * max(sizes)
    vae = meta_vae(family.name, place)
    vae_weights = _size(vae)
    text = text_parameters(family.name, place, offloaded=train.offload) * dtype.itemsize
    width, height = largest_size(recipe)
    pixels = torch.empty(3, height, width, device="meta")
    encoding = _peak(lambda: family.encode_image(vae, pixels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # attaching the true one tells it
        adapter = attach_planned(recipe, bare)
    held = sum(tensor.nbytes for tensor in adapter.state_dict().values())
    trained = sum(parameter.numel() for parameter in adapter.parameters())
    moments = int(4 * trained * STATE_COPIES[train.optimizer.name])
    tokens = text_tokens(family.name, place)
    transient = _dequantized(bare, dtype) if train.quantization else 0
    draws = train.preview is not None or train.select == "auto"
    kept = {"denoiser": denoiser, **({"VAE": vae_weights} if draws else {})}
    shared = {**kept, "adapter": held, "optimizer": moments}
    if train.ema:
        shared["average"] = 4 * trained
    if recipe.learns_word:  # their answers change at each step
        shared["text encoders"] = text
    phases = [Phase("text", {"text encoders": text})]
    on_cpu = _on_cpu(recipe)
    if on_cpu and (pages := pages_read(recipe)):
        phases.append(Phase("loading", {"denoiser": denoiser}, pages))
    phases.append(
        Phase("encoding", {"denoiser": denoiser, "VAE": vae_weights, "activations": encoding})
    )
    folding = adapter.folding(training=True, device="meta") if on_cpu else None
    step, left = _step_memory(recipe, family, adapter, folding, vae, tokens)
    if folding is not None:
        shared["weights to fold into"] = folding.nbytes
    gradients = 4 * trained
    phases.append(
        Phase(
            "training",
            {**shared, "activations and gradients": max(step, gradients) + transient},
        )
    )
    if on_cpu:
        phases.append(
            Phase("saving", {**shared, "files to write": left + _saving_peak(recipe, adapter)})
        )
    if draws:
        drawing = _sampling_peak(recipe, family, adapter, vae, tokens)
        phases.append(Phase("previews", {**shared, "activations": drawing + transient}))
    return MemoryPlan(phases)


def _on_cpu(recipe: Recipe) -> bool:
    return not is_accelerator(named_device(recipe.train.device))


def folder_of(model: str) -> str | None:
    """Return where a base's shapes are found: its folder, or its name; None of a single file."""
    if is_base(model):
        return str(model_folder(model))
    return None if expanded(model).is_file() else model


def _size(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def _weights(denoiser: nn.Module, quantization: str | None, dtype: torch.dtype) -> int:
    """Return the bytes of a model's weights; bitsandbytes quantizes those of linear layers."""
    whole = _size(denoiser)
    if quantization is None:
        return whole
    saved = 0.0
    for module in denoiser.modules():
        if isinstance(module, nn.Linear):
            numbers, rows = module.weight.numel(), module.weight.shape[0]
            packed = numbers * NF4_BYTES if quantization == "nf4" else numbers + 4 * rows
            saved += numbers * dtype.itemsize - packed
    return int(whole - saved)


def _dequantized(denoiser: nn.Module, dtype: torch.dtype) -> int:
    """Return the bytes of the largest linear layer's weights: one is unpacked at a time."""
    linear = [m.weight.numel() for m in denoiser.modules() if isinstance(m, nn.Linear)]
    return max(linear) * dtype.itemsize


def planned_denoiser(recipe: Recipe) -> Any:
    """Return the denoiser of a recipe's base without weights, in the number format it runs in."""
    bare = meta_denoiser(recipe.family, folder_of(recipe.base.model))
    return cast(bare, DTYPES[recipe.train.precision]).requires_grad_(False)


def attach_planned(recipe: Recipe, denoiser: Any) -> Adapter:
    """Put a recipe's adapter on a denoiser without weights.

    Raises:
        UserError: if it doesn't fit the denoiser.
    """
    own = recipe.adapter
    adapter = attach(
        denoiser,
        own.method,
        own.rank,
        init="random_last",  # of the same size as all others
        blocks=own.blocks,
        targets=own.targets,
    )
    if recipe.train.gradient_checkpointing:
        adapter.enable_gradient_checkpointing()
    return adapter


def _lived(run: Any) -> LiveMemory:
    live = LiveMemory()
    with flash_attention(), masks_with_values(), live:
        result = run()
        del result
    return live


def _peak(run: Any) -> int:
    return _lived(run).peak


def _step_memory(
    recipe: Recipe,
    family: Family,
    adapter: Adapter,
    folding: Folding | None,
    vae: Any,
    tokens: int,
) -> tuple[int, int]:
    """Return the most bytes alive in a forward and backward pass, and those that stay after a step.

    Gradients are in the first. What stays are the factors of the call, until the next one.
    """
    train, denoiser = recipe.train, adapter.denoiser
    samples = train.batch_size * (2 if recipe.concept.prior else 1)
    sides = latent_sides(family.name, vae, *largest_size(recipe))
    latents = torch.empty(samples, family.latent_channels(denoiser), *sides, device="meta")
    objective = family.objective(family.standard_scheduler, "auto")
    batch = Batch(
        latents,
        latents.clone(),
        torch.full((samples,), 500, device="meta"),
        random_conditioning(family.name, denoiser, samples, tokens),
        None,
        train.batch_size,
    )

    dtype = DTYPES[train.precision]
    loss = Loss(family, denoiser, objective, dtype, train.guidance, 1.0, adapter.penalty)

    def step() -> None:
        whole, _ = loss(batch)
        whole.backward()  # type: ignore[no-untyped-call]

    def folded_step() -> None:
        with adapter.folded(folding):
            step()

    live = _lived(folded_step)
    for parameter in adapter.parameters():
        parameter.grad = None
    return live.peak, live.now


def _saving_peak(recipe: Recipe, adapter: Adapter) -> int:
    """Return the most bytes that the run's files take in memory while they are written."""
    trained = sum(4 * parameter.numel() for parameter in adapter.parameters())
    changes = adapter.layers.values()
    low_rank = [change for change in changes if isinstance(change, LowRankUpdate)]
    pairs = _peak(lambda: [change.factors() for change in low_rank])
    numbers = sum(change.numbers_in_file() for change in changes)
    result = pairs + FILE_DTYPES[recipe.output.dtype].itemsize * numbers
    return max(trained, result)


@torch.no_grad()
def _sampling_peak(recipe: Recipe, family: Family, adapter: Adapter, vae: Any, tokens: int) -> int:
    """Return the most bytes alive while a preview is denoised and decoded."""
    settings, denoiser = sampling_settings(recipe), adapter.denoiser
    assert settings.height and settings.width
    rows = family.guidance_calls(denoiser, settings.guidance) if family.guidance_batched else 1
    sides = latent_sides(family.name, vae, settings.width, settings.height)
    shape = (family.latent_channels(denoiser), *sides)
    dtype = DTYPES[recipe.train.precision]
    noisy = torch.empty(rows, *shape, device="meta", dtype=dtype)
    text = random_conditioning(family.name, denoiser, rows, tokens)
    t = torch.full((rows,), 500.0, device="meta")

    def denoise() -> None:
        folds = adapter.folding(training=False, device="meta") if _on_cpu(recipe) else None
        with adapter.folded(folds), adapter.frozen():
            family.predict(denoiser, noisy, t, text, settings.guidance)

    latent = framed(torch.empty(1, *shape, device="meta"), family.vae_frames)
    return max(_peak(denoise), _peak(lambda: vae.decode(latent, return_dict=False)))
