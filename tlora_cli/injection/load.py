"""Load an adapter file, of any format that can be read, onto a denoiser."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tlora_cli.families import Family, denoiser_of, family_of
from tlora_cli.families.wrapping import modules_of
from tlora_cli.formats import AdapterInfo, AdapterWeights, OpenAdapter, open_adapter
from tlora_cli.formats.foreign import lacking
from tlora_cli.formulas.convolution import as_matrices
from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.bundled import base_in, version_of
from tlora_cli.foundation.errors import UserError
from tlora_cli.injection.adapter import Adapter
from tlora_cli.injection.attach import new_changes
from tlora_cli.injection.changes import Change, LearnedWord, fixed_pair, new_change
from tlora_cli.injection.placement import check_ready
from tlora_cli.injection.words import ENCODERS, embeddings_of, new_words
from tlora_cli.methods import METHODS, StartSettings, lora, tlora


def load_adapter(
    model: Any,
    path: str | Path | OpenAdapter,
    min_rank: int | None = None,
    trainable: bool = False,
) -> Adapter:
    """Put the adapter of a file on a denoiser or a pipeline.

    Args:
        model: an SDXL UNet, a FLUX transformer, or a pipeline with one.
        path: our file, a diffusers or kohya LoRA, or a published T-LoRA checkpoint
            (pytorch_lora_weights.safetensors, lora.pt, or the folder of either). Pickled code is
            never run. Or such a file that is open already.
        min_rank: rank at the noisiest timestep, for a file that doesn't say; it overrides a file
            that does.
        trainable: make the factors parameters again (fp32). S and A of the ortho form are known
            only as a product; the function is the same, the optimizer's path may differ. To go on
            exactly, resume from a checkpoint.

    Raises:
        UserError: if the file is missing, damaged, of another family or of another model's shape,
            if it should have a rank schedule but doesn't say it, or if the model has other layers
            in place of its own (a LoRA of PEFT, fused projections).
    """
    denoiser, family = denoiser_of(model), family_of(model)
    check_ready(modules_of(denoiser))
    opened = _opened(path)
    weights, where = opened.read(matrix_layers(denoiser)), str(opened.given)
    if weights.family not in (None, family.name):
        raise UserError(
            f"the adapter is for {weights.family}, the model is {family.name}",
            where=where,
            do=f"use it with a {weights.family} base",
        )
    _warn_of_prediction(opened, family, model)
    schedule = _on_base(choose_schedule(weights, min_rank, where), family, model)
    changes = changes_of(weights, model, denoiser, where, trainable)
    encoders = embeddings_of(model) if changes.keys() & ENCODERS.keys() else {}
    return Adapter(
        denoiser, family, changes, schedule, weights.info, trainable, weights.blocks, encoders
    )


def _warn_of_prediction(opened: OpenAdapter, family: Family, model: Any) -> None:
    """Warn if the file was trained on a base that predicts v, and the pipeline's does not."""
    config = getattr(getattr(model, "scheduler", None), "config", {})
    predicts = config.get("prediction_type")
    if opened.trained_for_v and predicts in family.prediction_types[:1]:
        warnings.warn(
            f"{opened.given.name} says that it was trained on a base that predicts v, but this "
            f"base predicts {predicts}: pictures may be washed out or noisy",
            stacklevel=3,
        )


def check_version(info: AdapterInfo, denoiser: Any, where: str) -> None:
    """Stop if an adapter was trained on other weights of the base that is loaded.

    Raises:
        UserError: if the base has been trained anew since.
    """
    base = base_in(getattr(denoiser, "config", {}).get("_name_or_path") or "")
    if base is None or info.base_model != base or info.base_version == version_of(base):
        return
    raise UserError(
        f"the adapter was trained on an earlier version of {base}, whose weights were other ones",
        where=where,
        do="train it again with its recipe, or use the version of tlora that made it",
    )


def _on_base(schedule: RankSchedule | None, family: Family, model: Any) -> RankSchedule | None:
    """Return the schedule at the noise levels of a pipeline's base.

    A denoiser alone doesn't tell its noise schedule; it is taken to be that of the training.
    """
    scheduler = getattr(model, "scheduler", None)
    if schedule is None or schedule.axis is None or scheduler is None:
        return schedule
    here = family.noise_axis(dict(scheduler.config))
    axis = dataclasses.replace(schedule.axis, signal=here.signal)
    return dataclasses.replace(schedule, axis=axis)


def matrix_layers(denoiser: nn.Module) -> dict[str, Any]:
    """Return the linear layers and convolutions of a model by name."""
    kinds = (nn.Linear, nn.Conv2d)
    return {name: m for name, m in modules_of(denoiser).items() if isinstance(m, kinds)}


def rows_of(layers: Mapping[str, Any]) -> dict[str, int]:
    """Return how many outputs each layer has; a convolution: channels."""
    return {
        name: layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
        for name, layer in layers.items()
    }


def load_words(pipeline: Any, path: str | Path | OpenAdapter) -> list[RemovableHandle]:
    """Put the learned words of an adapter file on a pipeline's text encoders, if it has any.

    For a pipeline that holds the text encoders alone; `load_adapter` does it for a whole one.

    Returns:
        The hooks; remove them to take the words off.

    Raises:
        UserError: if the file can't be read or does not fit.
    """
    opened = _opened(path)
    if not opened.learned_word:
        return []
    words = _words(pipeline, opened.read(()), str(opened.given))
    modules = embeddings_of(pipeline)
    return [words[name].hook_embeddings(module) for name, module in modules.items()]


def _opened(path: str | Path | OpenAdapter) -> OpenAdapter:
    return path if isinstance(path, OpenAdapter) else open_adapter(Path(path))


def _words(pipeline: Any, weights: AdapterWeights, where: str) -> dict[str, LearnedWord]:
    """Return the file's learned words for the text encoders that the pipeline has."""
    if not weights.words or not embeddings_of(pipeline):  # text is encoded by another pipeline
        return {}
    made = new_words(pipeline, weights.info.placeholder, weights.info.class_name)
    for name, word in made.items():
        _fill(name, word, weights.words.get(name, {}), where)
    return made


def _fill(name: str, change: nn.Module, parts: dict[str, Tensor], where: str) -> None:
    try:
        change.load_state_dict({key: tensor.float() for key, tensor in parts.items()})
    except RuntimeError as error:
        raise UserError(
            f"the adapter does not fit layer {name} of the model",
            where=where,
            do="use the base model that the adapter was trained on",
        ) from error


def changes_of(
    weights: AdapterWeights, model: Any, denoiser: nn.Module, where: str, trainable: bool = False
) -> dict[str, Change]:
    """Return what an adapter changes in each module, in the model's order.

    Args:
        weights: of a file.
        model: the denoiser, or a pipeline with it; learned words need one.
        denoiser: with its weights, of which changes may be functions.
        where: the file, for messages.
        trainable: whether the changes get gradients.

    Raises:
        UserError: if the adapter does not fit the model, or its method is unknown.
    """
    check_version(weights.info, denoiser, where)
    known = matrix_layers(denoiser)
    fitting = {name: check_fit(known, name, p, where) for name, p in weights.layers.items()}
    changes: dict[str, Change] = {
        name: _update(*weights.layers[name], weights.copies, trainable, layer)
        for name, layer in known.items()
        if name in fitting
    }
    if not weights.low_rank:
        changes |= _without_ranks(weights, denoiser, where)
    if weights.words and model is denoiser:
        raise UserError(
            "the adapter has learned a word, which belongs to the text encoders",
            where=where,
            do="load it on the whole pipeline",
        )
    changes |= _words(model, weights, where)
    for change in changes.values():
        change.requires_grad_(trainable)
    return changes


def _update(down: Tensor, up: Tensor, copies: int, trainable: bool, layer: Any) -> Change:
    """Return the update of a layer by a pair of factors."""
    if not trainable:
        return fixed_pair(down, up, copies, layer).to(layer.weight.device)
    method, tensors = lora.LORA, lora.from_factors
    if copies == tlora.UPDATE.copies:
        method, tensors = tlora.TLORA, tlora.from_factors
    down, up = as_matrices(down.float(), up.float())
    made = new_change(method, tensors(down, up), down.shape[0] // copies, layer)
    return made.to(layer.weight.device)


def _without_ranks(weights: AdapterWeights, denoiser: nn.Module, where: str) -> dict[str, Change]:
    """Return what a method that changes the weights themselves does to each module."""
    method = weights.info.method or ""
    again = "get the file again, or save it again from its checkpoint"
    if method not in METHODS or METHODS[method].low_rank:
        raise UserError(f"the file's method is {method or 'not said'}", where, again)
    modules = {name: m for name, m in modules_of(denoiser).items() if name in weights.parts}
    if missing := weights.parts.keys() - modules.keys():
        raise lacking(min(missing), where)
    changes = new_changes(method, modules, StartSettings(blocks=weights.blocks or 1), seed=0)
    for name, change in changes.items():
        _fill(name, change, weights.parts[name], where)
    return changes


def choose_schedule(
    weights: AdapterWeights, min_rank: int | None, where: str, alpha: float | None = None
) -> RankSchedule | None:
    """Return the file's schedule, with what is given in place of what it says; None without ranks.

    Raises:
        UserError: if there should be one but is none, or the given numbers make none.
    """
    if not weights.low_rank:
        if min_rank is not None:
            raise UserError(
                f"{weights.info.method} has no ranks, so no min_rank", where, "leave --min-rank out"
            )
        return None
    schedule = weights.schedule
    if schedule is None and min_rank is None:
        raise UserError(
            "the file is a T-LoRA checkpoint but does not say its rank schedule",
            where=where,
            do="pass min_rank as it was trained (--min-rank), or keep the settings of the training "
            "with it (logs/hparams.yml of the published code, lycoris_config.json of SimpleTuner)",
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
    layers: Mapping[str, Any], name: str, pair: tuple[Tensor, Tensor], where: str
) -> nn.Module:
    """Return the layer that a pair belongs to.

    Args:
        layers: the model's, by `matrix_layers`.
        name: of the layer.
        pair: its factors, as files hold them.
        where: the file, for messages.

    Raises:
        UserError: if the model lacks it or has it in another shape.
    """
    down, up = pair
    layer: nn.Module | None = layers.get(name)
    if layer is None:
        raise lacking(name, where)
    found, wanted = (up.shape[0], *down.shape[1:]), _shape(layer)
    if found != wanted:
        raise UserError(
            f"layer {name} is {'x'.join(map(str, wanted))} in the model but "
            f"{'x'.join(map(str, found))} in the adapter",
            where=where,
            do="use the base model that the adapter was trained on",
        )
    return layer


def _shape(layer: Any) -> tuple[int, ...]:
    """Return the shape of a layer's weights, which may be packed."""
    if isinstance(layer, nn.Conv2d):
        return (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    return (layer.out_features, layer.in_features)
