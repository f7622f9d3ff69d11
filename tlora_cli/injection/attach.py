"""Make a new adapter for a denoiser."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tlora_cli.families import Family, denoiser_of, family_of
from tlora_cli.families.wrapping import modules_of
from tlora_cli.formats.weights import AdapterInfo
from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.errors import UserError
from tlora_cli.injection.adapter import Adapter
from tlora_cli.injection.changes import Change, new_change
from tlora_cli.injection.placement import check_ready
from tlora_cli.injection.targets import (
    as_seen_by,
    check_blocks,
    check_convolutions,
    check_unquantized,
    chosen_modules,
    fitting_rank,
)
from tlora_cli.injection.words import embeddings_of, new_words
from tlora_cli.methods import DEFAULT, METHODS, StartSettings
from tlora_cli.methods.tlora import STARTS


def default_schedule(
    method: str, rank: int, min_rank: int | None, family: Family
) -> RankSchedule | None:
    """Return a method's own schedule: linear if masked, else always full; None without ranks.

    The least rank of a masked method is what was published for the family, the same as in a recipe
    that leaves it out: half the rank for SDXL, 1 for FLUX (T-LoRA, section 5, and its code).
    """
    chosen = METHODS[method]
    if not chosen.low_rank:
        return None
    if not chosen.masked:
        return RankSchedule(rank, rank, kind="constant")
    if min_rank is None:
        published = family.masked_defaults.get("adapter", {})
        min_rank = published.get("min_rank", max(1, rank // 2))
    try:
        return RankSchedule(rank, min_rank)
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
        has = "always uses its full rank" if METHODS[method].low_rank else "has no ranks"
        masked = " or ".join(name for name, one in METHODS.items() if one.masked)
        raise UserError(
            f"{method} {has} and takes no min_rank or schedule",
            do=f"use {masked} for a rank that follows the timestep",
        )


def attach(
    denoiser: Any,
    method: str = DEFAULT,
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
    word_rate: float | None = None,
) -> Adapter:
    """Put a new, trainable adapter on a denoiser (or on the denoiser of a pipeline).

    The denoiser's answers do not change until the adapter is trained. The base model's parameters
    are frozen; the adapter's are fp32 whatever the base's dtype.

    Args:
        denoiser: an SDXL UNet2DConditionModel, a FluxTransformer2DModel, or a pipeline.
        method: a name of `METHODS`, such as tlora or lora.
        rank: full rank R, of the low-rank methods.
        min_rank: rank at the noisiest timestep, for masked methods; default: as published for the
            family, R // 2 for SDXL and 1 for FLUX.
        schedule: any other schedule of the same rank, for masked methods.
        init: start of the ortho methods: {random, weights}_{principal, middle, last}.
        init_std: standard deviation of a random start, `1/r` or `1/sqrt(r)`.
        blocks: number of diagonal blocks, of OFT and GSOFT.
        seed: of the start.
        targets: `attention`, `linear` or `all` (`families/reach.py`), or a regular expression for
            full names of linear layers; default: the method's own choice, for most `attention`.
        info: where it comes from; `method`, `init` and `seed` are filled in. Its placeholder and
            class are what a learned word is, and starts from.
        text: the pipeline with the text encoders, if it is another one; for learned words.
        word_rate: learn a word beside the method's own changes (pivotal tuning), at this multiple
            of the learning rate; default: a word is learned by the methods that are one, at 1.

    Raises:
        UserError: if nothing matches, the size does not fit a layer, or a name is unknown.
    """
    family, model = family_of(denoiser), denoiser_of(denoiser)
    _check_names(method, init, schedule, min_rank)
    check_ready(modules_of(model))
    layers = chosen_modules(method, family, model, targets)
    chosen = METHODS[method]
    learns = chosen.word or word_rate is not None
    if learns and family.no_learned_words:
        raise UserError(
            f"{method if chosen.word else 'word_rate'} learns a word: {family.no_learned_words}",
            do="use another method" if chosen.word else "leave word_rate out",
        )
    check_convolutions(chosen, layers)
    if chosen.low_rank:
        layers = fitting_rank(rank, layers, targets)
    else:
        check_unquantized(method, layers)
    check_blocks(chosen.divides, blocks, layers)
    if schedule is None:
        schedule = default_schedule(method, rank, min_rank, family)
    elif schedule.rank != rank:
        raise UserError(f"the schedule has rank {schedule.rank}, the adapter {rank}")
    made = new_changes(method, layers, StartSettings(rank, init, init_std, blocks), seed)
    filled = dataclasses.replace(info or AdapterInfo(), method=method, init=init, seed=seed)
    encoders: dict[str, nn.Module] = {}
    if learns:
        encoders = embeddings_of(text or denoiser)
        rate = 1.0 if word_rate is None else word_rate
        made |= new_words(text or denoiser, filled.placeholder, filled.class_name, rate)
    blocked = blocks if chosen.divides else None
    return Adapter(model, family, made, schedule, filled, True, blocked, encoders)


def new_changes(
    method: str, modules: Mapping[str, nn.Module], settings: StartSettings, seed: int
) -> dict[str, Change]:
    """Return a method's change of each module, at its start."""
    generator, chosen = torch.Generator().manual_seed(seed), METHODS[method]
    seen = [as_seen_by(chosen, module) for module in modules.values()]
    starts = chosen.starts(seen, settings, generator)
    return {
        name: new_change(chosen, start, settings.rank, module).to(_device_of(module))
        for (name, module), start in zip(modules.items(), starts, strict=True)
    }


def _device_of(module: nn.Module) -> torch.device:
    return next(module.parameters(recurse=False)).device
