"""Load an adapter file, of any format that can be read, onto a denoiser."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tlora_cli.adapters import Fixed, Parametrization, rebuild
from tlora_cli.attachment import Adapter
from tlora_cli.errors import UserError
from tlora_cli.families import denoiser_of, family_of
from tlora_cli.formats import AdapterWeights, read_adapter
from tlora_cli.schedules import RankSchedule


def load_adapter(
    model: Any, path: str | Path, min_rank: int | None = None, trainable: bool = False
) -> Adapter:
    """Put the adapter of a file on a denoiser or a pipeline.

    Args:
        model: an SDXL UNet, a FLUX transformer, or a pipeline with one.
        path: our file, a diffusers or kohya LoRA, or a published T-LoRA checkpoint
            (pytorch_lora_weights.safetensors, lora.pt, or the folder of either). Pickled code is
            never run.
        min_rank: rank at the noisiest timestep, for a file that doesn't say; it overrides a file
            that does.
        trainable: make the factors parameters again (fp32). S and A of the ortho form are known
            only as a product; the function is the same, the optimizer's path may differ. To go on
            exactly, resume from a checkpoint.

    Raises:
        UserError: if the file is missing, damaged, of another family or of another model's shape,
            or if it should have a rank schedule but doesn't say it.
    """
    denoiser, family = denoiser_of(model), family_of(model)
    linears = {n: m for n, m in denoiser.named_modules() if isinstance(m, nn.Linear)}
    weights = read_adapter(Path(path), linears)
    where = str(path)
    if weights.family not in (None, family.name):
        raise UserError(
            f"the adapter is for {weights.family}, the model is {family.name}",
            where=where,
            do=f"use it with a {weights.family} base",
        )
    schedule = choose_schedule(weights, min_rank, where)
    fitting = {name: check_fit(linears, name, p, where) for name, p in weights.layers.items()}
    layers = {
        name: _parametrization(weights, name, trainable, linears[name])
        for name in linears
        if name in fitting
    }
    return Adapter(denoiser, family, layers, schedule, weights.info, trainable)


def choose_schedule(
    weights: AdapterWeights, min_rank: int | None, where: str, alpha: float | None = None
) -> RankSchedule:
    """Return the file's schedule, with what is given in place of what it says.

    Raises:
        UserError: if there is none, or the given numbers make none.
    """
    schedule = weights.schedule
    if schedule is None and min_rank is None:
        raise UserError(
            "the file is a T-LoRA checkpoint but does not say its rank schedule",
            where=where,
            do="pass min_rank as it was trained (--min-rank), or keep logs/hparams.yml beside it",
        )
    if schedule is not None and min_rank is None and alpha is None:
        return schedule
    ranks = {down.shape[0] for down, _ in weights.layers.values()}
    if len(ranks) > 1:
        raise UserError(
            "min_rank needs one rank for all layers; this file has several",
            where=where,
            do="leave min_rank out",
        )
    try:
        if schedule is None or schedule.kind == "constant":
            if min_rank is None:
                raise ValueError("alpha shapes a rank schedule, and the file is a plain LoRA")
            return RankSchedule(weights.rank, min_rank, 1.0 if alpha is None else alpha)
        return dataclasses.replace(
            schedule,
            min_rank=schedule.min_rank if min_rank is None else min_rank,
            alpha=schedule.alpha if alpha is None else alpha,
        )
    except ValueError as error:
        raise UserError(str(error), where, do="choose min_rank between 1 and the rank") from error


def check_fit(
    linears: dict[str, nn.Linear], name: str, pair: tuple[Tensor, Tensor], where: str
) -> nn.Linear:
    """Return the layer that a pair belongs to.

    Raises:
        UserError: if the model lacks it or has it in another shape.
    """
    down, up = pair
    layer = linears.get(name)
    if layer is None:
        raise UserError(
            f"the adapter has a layer the model lacks: {name}",
            where=where,
            do="use the base model that the adapter was trained on",
        )
    if (up.shape[0], down.shape[1]) != (layer.out_features, layer.in_features):
        raise UserError(
            f"layer {name} is {layer.out_features}x{layer.in_features} in the model but "
            f"{up.shape[0]}x{down.shape[1]} in the adapter",
            where=where,
            do="use the base model that the adapter was trained on",
        )
    return layer


def _parametrization(
    weights: AdapterWeights, name: str, trainable: bool, layer: nn.Linear
) -> Parametrization:
    down, up = weights.layers[name]
    made = (
        rebuild(down.float(), up.float(), weights.copies)
        if trainable
        else Fixed(down, up, weights.copies)
    )
    return made.to(layer.weight.device)
