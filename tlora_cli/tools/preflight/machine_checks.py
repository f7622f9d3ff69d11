"""A look at what a recipe asks of the machine: device, packages, the output folder, the disk."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
from huggingface_hub import constants, try_to_load_from_cache

from tlora_cli.evaluation.encoder_kinds import KINDS
from tlora_cli.families.loading import quantization_config
from tlora_cli.foundation.bundled import is_base
from tlora_cli.foundation.devices import (
    DTYPES,
    choose_device,
    default_device,
    device_name,
    is_accelerator,
)
from tlora_cli.foundation.environment import check_alone, notices
from tlora_cli.foundation.errors import Status, UserError, system_reason
from tlora_cli.foundation.files import existing_parent, free_space, is_locked, writable
from tlora_cli.foundation.gpu_only import GPU_ONLY, check_gpu
from tlora_cli.recipe.models import Recipe
from tlora_cli.tools.preflight.findings import Finding, gigabytes, of_error, ok, problem, warning
from tlora_cli.training.disk_space import disk_space
from tlora_cli.training.execution import check_execution, choose_execution
from tlora_cli.training.from_recipe import sampling_settings
from tlora_cli.training.optimizers import check_optimizer
from tlora_cli.training.run_folder import RunFolder
from tlora_cli.training.scoring_prompts import ENCODERS
from tlora_cli.training.trackers.base import check_installed

LARGE = 500_000_000
"""Parameters of a denoiser from which on a step on a CPU takes minutes."""
PICTURE_BYTES = 2
"""Bytes of a preview's pixel: PNG of a photograph takes 1 to 2."""


def look_at_environment() -> Iterator[Finding]:
    """Yield what variables of launchers, clusters and libraries mean for a run."""
    try:
        check_alone()
    except UserError as error:
        yield of_error("environment", error)
    yield from (warning("environment", line) for line in notices())


def look_at_device(recipe: Recipe) -> Iterator[Finding]:
    """Yield what is found of the device, and of the packages that the settings need."""
    train, wrong = recipe.train, []

    def tried(check: Callable[..., Any], *given: Any) -> Any:
        try:
            return check(*given)
        except UserError as error:
            wrong.append(of_error("device", error))
            return None

    device = tried(choose_device, train.device, train.precision)
    if device is None:
        device = default_device()
    if train.quantization:
        tried(choose_device, device.type, "fp32", train.quantization)
        tried(quantization_config, train.quantization, DTYPES[train.precision])
    tried(check_optimizer, train.optimizer, is_accelerator(device))
    tried(check_execution, train.execution, device)
    tried(_check_attention, train.attention, device)
    tried(check_installed, recipe.output.trackers)
    yield from wrong
    if not wrong:
        execution = choose_execution(recipe, device)
        yield ok("device", f"{device_name(device)}, {train.precision}, {execution}")


def _check_attention(kind: str, device: torch.device) -> None:
    check_gpu("train.attention", kind, is_accelerator(device))
    if kind == "xformers" and importlib.util.find_spec("xformers") is None:
        raise UserError(
            "xformers attention needs the package xformers",
            where="train.attention",
            do=GPU_ONLY["train.attention"].do,
            kind=Status.MISSING,
        )


def look_at_encoders(recipe: Recipe) -> Iterator[Finding]:
    """Yield what is found of the encoders that score checkpoints with `train.select: auto`."""
    if recipe.train.select != "auto" or is_base(recipe.base.model):
        return
    wanted = [KINDS[name].checkpoint for name in ENCODERS]
    lacking = [
        one for one in wanted if not isinstance(try_to_load_from_cache(one, "config.json"), str)
    ]
    named = " and ".join(lacking or wanted)
    if lacking and constants.HF_HUB_OFFLINE:
        yield problem(
            "encoders",
            f"{named}, which score the checkpoints, must come from the Hub, and this is offline",
            "run once with the network, or take train.select: last",
            Status.MISSING,
        )
    else:
        yield ok("encoders", f"{named} {'will be downloaded' if lacking else 'are there'}")


def look_at_speed(denoiser: Any, on_cpu: bool) -> Iterator[Finding]:
    """Yield a warning for a model that is too large to be trained on a CPU."""
    size = sum(parameter.numel() for parameter in denoiser.parameters())
    if on_cpu and size > LARGE:
        yield warning(
            "device",
            f"no GPU is used, and the base has {size / 1e9:.1f} billion parameters: a step will "
            "take minutes",
            "train on a CUDA card; `tlora doctor` tells why one is not used",
        )


def look_at_output(recipe: Recipe) -> Iterator[Finding]:
    """Yield what is found of the run folder."""
    run = RunFolder(writable(recipe.output.dir))
    there = existing_parent(run.path)
    if not there.is_dir():
        yield problem("output", f"{there} is a file", "choose another output.dir")
        return
    try:
        run.check(recipe, resume=False)
    except UserError as error:
        yield of_error("output", error)
    try:
        if is_locked(run.path):
            yield problem(
                "output",
                f"another tlora run is working in {run.path}",
                "wait for it to end",
                Status.LATER,
            )
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        yield problem(
            "output",
            f"{there} can't be written: {system_reason(error)}",
            "choose an output.dir that you may write to",
        )
        return
    yield ok("output", f"{run.path} can be written")


def look_at_disk(recipe: Recipe, adapter: Any) -> Finding:
    """Return whether the disk has room for all that the run writes.

    Args:
        recipe: of the run.
        adapter: as it will be, with or without values.
    """
    space, folder = disk_space(adapter, recipe), writable(recipe.output.dir)
    needed, free = space.of_run(recipe.train) + _previews(recipe), free_space(folder)
    once = f", and {gigabytes(space.start)} once" if space.start else ""
    text = (
        f"{gigabytes(needed)} for checkpoints ({gigabytes(space.checkpoint)} each{once}), previews "
        "and the result"
    )
    if needed > free:
        return problem(
            "disk",
            f"{text}, but {gigabytes(free)} are free",
            "free disk space, choose another output.dir, or lower train.checkpoint.keep",
            Status.NO_ROOM,
        )
    return ok("disk", f"{text}; {gigabytes(free)} free")


def _previews(recipe: Recipe) -> int:
    """Return about how many bytes the previews take."""
    settings = sampling_settings(recipe)
    assert settings.width and settings.height
    return previews_of(recipe) * settings.width * settings.height * PICTURE_BYTES


def previews_of(recipe: Recipe) -> int:
    """Return how many previews a run draws."""
    preview = recipe.train.preview
    if preview is None:
        return 0
    times = 1 + -(-recipe.train.steps // preview.every)
    return times * len(preview.prompts) * preview.count
