"""Make a new adapter for a denoiser."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tlora_cli.families import denoiser_of, family_of
from tlora_cli.formats.weights import AdapterInfo
from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.errors import UserError
from tlora_cli.injection.adapter import Adapter
from tlora_cli.injection.targets import check_blocks, check_rank, check_unquantized, chosen_modules
from tlora_cli.injection.words import embeddings_of, new_words
from tlora_cli.methods import METHODS, STARTS, Change, StartSettings


def default_schedule(method: str, rank: int, min_rank: int | None) -> RankSchedule | None:
    """Return a method's own schedule: linear if masked, else always full; None without ranks."""
    if METHODS[method].size != "rank":
        return None
    if not METHODS[method].masked:
        return RankSchedule(rank, rank, kind="constant")
    try:
        return RankSchedule(rank, max(1, rank // 2) if min_rank is None else min_rank)
    except ValueError as error:
        raise UserError(str(error), do="choose min_rank between 1 and rank") from error


def _check_names(
    method: str, init: str, schedule: RankSchedule | None, min_rank: int | None
) -> None:
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}", do=f"use one of {', '.join(METHODS)}")
    if init not in STARTS:
        raise UserError(f"unknown init {init!r}", do=f"use one of {', '.join(STARTS)}")
    if not METHODS[method].masked and (schedule is not None or min_rank is not None):
        has = "always uses its full rank" if METHODS[method].size == "rank" else "has no ranks"
        raise UserError(
            f"{method} {has} and takes no min_rank or schedule",
            do="use vanilla_tlora or tlora for a rank that follows the timestep",
        )


def attach(
    denoiser: Any,
    method: str = "tlora",
    rank: int = 64,
    min_rank: int | None = None,
    *,
    schedule: RankSchedule | None = None,
    init: str = "random_last",
    init_std: str = "1/r",
    blocks: int = 32,
    seed: int = 0,
    targets: str | None = None,
    info: AdapterInfo | None = None,
    text: Any = None,
) -> Adapter:
    """Put a new, trainable adapter on a denoiser (or on the denoiser of a pipeline).

    The denoiser's answers do not change until the adapter is trained. The base model's parameters
    are frozen; the adapter's are fp32 whatever the base's dtype.

    Args:
        denoiser: an SDXL UNet2DConditionModel, a FluxTransformer2DModel, or a pipeline.
        method: a name of `METHODS`, such as tlora or lora.
        rank: full rank R, of the low-rank methods.
        min_rank: rank at the noisiest timestep; default R // 2. Only for masked methods.
        schedule: any other schedule of the same rank, for masked methods.
        init: start of the ortho methods: {random, weights}_{principal, middle, last}.
        init_std: standard deviation of a random start, `1/r` or `1/sqrt(r)`.
        blocks: number of diagonal blocks, of OFT and GSOFT.
        seed: of the start.
        targets: regular expression for full layer names; default: the method's own choice, for most
            the family's attention projections.
        info: where it comes from; `method`, `init` and `seed` are filled in. Its placeholder and
            class are what a learned word is, and starts from.
        text: the pipeline with the text encoders, if it is another one; for learned words.

    Raises:
        UserError: if nothing matches, the size does not fit a layer, or a name is unknown.
    """
    family, model = family_of(denoiser), denoiser_of(denoiser)
    _check_names(method, init, schedule, min_rank)
    layers = chosen_modules(method, family, model, targets)
    size = METHODS[method].size
    if size == "rank":
        check_rank(rank, layers)
    else:
        check_unquantized(method, layers)
    if size == "blocks":
        check_blocks(method, blocks, layers)
    if schedule is None:
        schedule = default_schedule(method, rank, min_rank)
    elif schedule.rank != rank:
        raise UserError(f"the schedule has rank {schedule.rank}, the adapter {rank}")
    start = StartSettings(rank, init, init_std, blocks)
    made = new_changes(method, layers, start, seed)
    filled = dataclasses.replace(info or AdapterInfo(), method=method, init=init, seed=seed)
    encoders: dict[str, nn.Module] = {}
    if METHODS[method].word:
        encoders = embeddings_of(text or denoiser)
        made |= new_words(text or denoiser, filled.placeholder, filled.class_name)
    blocked = blocks if size == "blocks" else None
    return Adapter(model, family, made, schedule, filled, True, blocked, encoders)


def new_changes(
    method: str, modules: Mapping[str, nn.Module], start: StartSettings, seed: int
) -> dict[str, Change]:
    """Return a method's change of each module, at its start."""
    generator = torch.Generator().manual_seed(seed)
    changes = METHODS[method].create_all(list(modules.values()), start, generator)
    return {
        name: change.to(_device_of(module))
        for (name, module), change in zip(modules.items(), changes, strict=True)
    }


def _device_of(module: nn.Module) -> torch.device:
    return next(module.parameters(recurse=False)).device
