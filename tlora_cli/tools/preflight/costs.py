"""The cost of many runs: arithmetic, hours at the speed of this machine, and disk."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from tlora_cli.families import FAMILIES
from tlora_cli.families.shapes import random_conditioning, text_tokens
from tlora_cli.foundation.devices import (
    DTYPES,
    default_device,
    device_name,
    is_accelerator,
    named_device,
)
from tlora_cli.foundation.durations import rounded
from tlora_cli.foundation.errors import Status
from tlora_cli.foundation.files import free_space
from tlora_cli.methods import METHODS
from tlora_cli.recipe.models import Recipe
from tlora_cli.tools.preflight.findings import Finding, gigabytes, ok, problem
from tlora_cli.tools.preflight.machine_checks import PICTURE_BYTES
from tlora_cli.tools.preflight.memory import attach_planned, folder_of, planned_denoiser
from tlora_cli.training.disk_space import DiskSpace, disk_space
from tlora_cli.training.from_recipe import sampling_settings
from tlora_cli.training.shape import largest_size

SIDE, SIDE_ON_GPU, TIMES = 1024, 8192, 4
"""Matrices that a device is timed with: their side on a CPU and on a GPU, how many products."""
TRAINING_CALLS = 3
"""Calls of the denoiser that a training step is worth: forward, and twice that backward."""


@dataclass(frozen=True)
class Job:
    """One run: training, and the pictures that are drawn of the result."""

    recipe: Recipe
    pictures: int


def look_at_costs(jobs: Sequence[Job], folder: Path, elsewhere: bool) -> Iterator[Finding]:
    """Yield what runs take of time and disk; nothing is loaded.

    Args:
        jobs: all runs.
        folder: that they are written into.
        elsewhere: whether they will run on another card than the one that is here, if any.
    """
    yield look_at_time(jobs, elsewhere)
    needed, free = sum(map(bytes_of, jobs)), free_space(folder)
    text = f"{gigabytes(needed)} in {folder}"
    if needed > free:
        yield problem(
            "disk",
            f"{text}, but {gigabytes(free)} are free",
            "run a part (--only, --set), lower train.checkpoint.keep, or choose another output",
            Status.NO_ROOM,
        )
    else:
        yield ok("disk", f"{text}; {gigabytes(free)} free")


def look_at_time(jobs: Sequence[Job], elsewhere: bool) -> Finding:
    """Return the time that runs take at least, by arithmetic; see `look_at_costs`."""
    operations = sum(map(operations_of, jobs))
    steps = sum(job.recipe.train.steps for job in jobs)
    pictures = sum(job.pictures for job in jobs)
    work = f"{steps:,} training steps, {pictures:,} pictures, {operations:.1e} operations"
    if elsewhere:
        return ok("time", f"{work}: at 100 TFLOP/s at least {rounded(operations / 1e14)}")
    train = jobs[0].recipe.train
    device = default_device() if train.device == "auto" else named_device(train.device)
    speed = products_per_second(device, train.precision)
    return ok(
        "time",
        f"{work}: at least {rounded(operations / speed)} on {device_name(device)}, at the "
        f"{speed / 1e12:.2g} TFLOP/s that its matrix products reach",
    )


def operations_of(job: Job) -> float:
    """Return the floating-point operations of the denoiser in a run; the rest is far less."""
    recipe, family = job.recipe, FAMILIES[job.recipe.family]
    train, settings = recipe.train, sampling_settings(recipe)
    assert settings.width and settings.height
    base = recipe.base.model
    samples = train.batch_size * train.accumulation * (2 if recipe.concept.prior else 1)
    trained = TRAINING_CALLS * train.steps * samples
    calls = _guidance_calls(family.name, base, settings.guidance)
    drawn = job.pictures * settings.steps * calls
    return trained * operations_of_call(
        family.name, base, *largest_size(recipe)
    ) + drawn * operations_of_call(family.name, base, settings.width, settings.height)


@cache
def _guidance_calls(family_name: str, base: str, guidance: float) -> int:
    from tlora_cli.families.standard import meta_denoiser

    denoiser = meta_denoiser(family_name, folder_of(base))
    return FAMILIES[family_name].guidance_calls(denoiser, guidance)


@cache
def operations_of_call(family_name: str, base: str, width: int, height: int) -> float:
    """Return the operations of a denoiser for one picture, counted on its shapes.

    Args:
        family_name: of the base.
        base: a folder, whose own shapes count; any other has those of the family's standard.
        width: pixels.
        height: pixels.
    """
    from tlora_cli.families.standard import (
        latent_sides,
        masks_with_values,
        meta_denoiser,
        meta_vae,
    )

    family = FAMILIES[family_name]
    place = folder_of(base)
    denoiser = meta_denoiser(family_name, place).requires_grad_(False)
    sides = latent_sides(family_name, meta_vae(family_name, place), width, height)
    noisy = torch.empty(1, family.latent_channels(denoiser), *sides, device="meta")
    text = random_conditioning(family_name, denoiser, 1, text_tokens(family_name, place))
    counter = FlopCounterMode(display=False)
    with counter, masks_with_values(), torch.no_grad():
        family.predict(denoiser, noisy, torch.full((1,), 500.0, device="meta"), text, 1.0)
    return float(counter.get_total_flops())


@cache
def products_per_second(device: torch.device, precision: str) -> float:
    """Return the operations a second that matrix products reach on a device."""
    dtype = DTYPES[precision] if is_accelerator(device) else torch.float32
    side = SIDE_ON_GPU if is_accelerator(device) else SIDE
    one = torch.randn(side, side, device=device, dtype=dtype)
    (one @ one).sum().item()  # warm, and waited for
    began = time.perf_counter()
    for _ in range(TIMES):
        product = one @ one
    product.sum().item()
    return TIMES * 2 * side**3 / (time.perf_counter() - began)


def bytes_of(job: Job) -> int:
    """Return about how many bytes a run leaves: adapter, checkpoints, pictures."""
    recipe, settings = job.recipe, sampling_settings(job.recipe)
    assert settings.width and settings.height
    pictures = job.pictures * settings.width * settings.height * PICTURE_BYTES
    if METHODS[recipe.adapter.method].word:  # a word, and little more
        return pictures
    return pictures + _disk_space(recipe).of_run(recipe.train)


_SPACE: dict[str, DiskSpace] = {}
"""Settings that the size of a run's files depends on -> that size; computed once for equal runs."""


def _disk_space(recipe: Recipe) -> DiskSpace:
    settings = recipe.model_dump_json(include={"family", "base", "adapter"})
    train = recipe.train
    key = f"{settings} {train.optimizer.name} {train.ema} {recipe.output.dtype}"
    if key not in _SPACE:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            adapter = attach_planned(recipe, planned_denoiser(recipe))
        _SPACE[key] = disk_space(adapter, recipe)
    return _SPACE[key]
