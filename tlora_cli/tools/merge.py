"""Put an adapter into its base's weights for good: a plain model, without a mask.

Sums are made in fp32 and rounded once. What rounding to fp16 takes from the update is measured.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tlora_cli.families import FAMILIES, Family
from tlora_cli.families.loading import PARTS, Base, load_pipeline
from tlora_cli.families.standard import meta_denoiser, meta_vae, text_parameters
from tlora_cli.formats import AdapterWeights, OpenAdapter, open_adapter
from tlora_cli.formats.headers import comfyui_keeps
from tlora_cli.foundation import devices
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import folder_atomically, require_space, write_atomically
from tlora_cli.injection.load import changes_of, matrix_layers
from tlora_cli.injection.words import ENCODERS, embeddings_of
from tlora_cli.sampling.base_model import base_of_adapter, family_for

DTYPES = {name: devices.DTYPES[name] for name in ("fp32", "fp16")}
"""Number formats of the merged weights. bf16 is none of them: its eight bits lose small updates."""
_NEEDLESS = shutil.ignore_patterns("*.msgpack", "*.onnx*", "openvino*")


@dataclass
class _Rounding:
    """The share of an update that is lost where its sum with the base's weights is rounded."""

    dtype: torch.dtype
    update: float = 0.0
    lost: float = 0.0

    def put(self, parameter: Tensor, merged: Tensor) -> None:
        """Write merged weights over a parameter, both fp32."""
        change = merged - parameter
        if self.dtype is not torch.float32:
            kept = merged.to(self.dtype).float() - parameter.to(self.dtype).float()
            self.lost += float((kept - change).double().square().sum())
        self.update += float(change.double().square().sum())
        parameter.copy_(merged)

    @property
    def share(self) -> float:
        """The loss, relative to the size of the update."""
        return (self.lost / self.update) ** 0.5 if self.update else 0.0


def merge_file(
    source: Path,
    output: Path,
    *,
    base: str | None = None,
    base_config: str | None = None,
    dtype: str = "fp32",
    rank: int | None = None,
) -> list[str]:
    """Write the base with the adapter in its weights.

    Args:
        source: the adapter, of any format that is read.
        output: a new folder for a whole diffusers pipeline, or a .safetensors file for the denoiser
            alone, in diffusers' names.
        base: Hub id, folder or file; default what the adapter says.
        base_config: diffusers folder with the configuration of a single file.
        dtype: a name of `DTYPES`, of what is written.
        rank: how many of the first components are merged; default all.

    Returns:
        What was merged, and what to know about it, in sentences.

    Raises:
        UserError: if the adapter can't be read or doesn't fit, can't be put into weights, or the
            disk is too small.
    """
    opened = open_adapter(source)
    info = opened.origin[1]
    where = base_of_adapter(source, info, base, base_config)
    family = FAMILIES[family_for(opened, where)]
    whole = output.suffix.lower() != ".safetensors"
    _require_space(family, where, output, whole, DTYPES[dtype])
    copied = where.path if whole and where.path is not None and where.path.is_dir() else None
    learned = ("text",) if opened.learned_word else ()
    parts = ("denoiser", *learned) if copied or not whole else PARTS
    pipeline = load_pipeline(family, where, parts=parts)
    denoiser: Any = getattr(pipeline, family.denoiser)
    rounding = _Rounding(DTYPES[dtype])
    with torch.no_grad():
        about, words = _merge(family, pipeline, opened, rank, whole, rounding)
        denoiser.to(rounding.dtype)
    _check_finite(denoiser, dtype)
    if not whole:
        tensors = {key: tensor.contiguous() for key, tensor in denoiser.state_dict().items()}
        write_atomically(output, lambda file: save_file(tensors, file, metadata={"format": "pt"}))
    else:
        with folder_atomically(output) as unfinished:
            _write_folder(family, pipeline, where, copied, words, unfinished, rounding.dtype)
    predicts = pipeline.scheduler.config.get("prediction_type")
    if not whole and predicts in family.prediction_types[1:]:
        about.append(f"the file can't say that the model predicts {predicts}; a folder does")
    if dtype != "fp32":
        about.append(
            f"rounding to {dtype} takes {100 * rounding.share:.2g}% of the update; fp32 takes none"
        )
    return about


def _merge(
    family: Family,
    pipeline: Any,
    opened: OpenAdapter,
    rank: int | None,
    whole: bool,
    rounding: _Rounding,
) -> tuple[list[str], list[str]]:
    """Change the pipeline's weights; return notes, and the text encoders that were changed."""
    denoiser: nn.Module = getattr(pipeline, family.denoiser)
    weights, where = opened.read(matrix_layers(denoiser)), str(opened.given)
    if weights.family not in (None, family.name):
        raise UserError(
            f"the adapter is for {weights.family}, the model is {family.name}",
            where=where,
            do=f"use it with a {weights.family} base",
        )
    keep = _kept_rank(weights, rank, where)
    changes = changes_of(weights, pipeline, denoiser, where)
    words = [encoder for encoder in ENCODERS if encoder in changes]
    for encoder in words:
        _check_word(encoder, len(weights.words[encoder]["vectors"]), weights, whole, where)
    modules = {**dict(denoiser.named_modules()), **embeddings_of(pipeline)}
    for name, change in changes.items():
        own = dict(modules[name].named_parameters(recurse=False))
        # Of the text encoders only a word's vectors change, as a whole: no update is rounded.
        change.merge(own, Tensor.copy_ if name in words else rounding.put, keep)
    if keep is None:
        about = [f"merged {weights.info.method}, {len(changes) - len(words)} modules"]
    else:
        about = _about_ranks(weights, keep)
    if words:
        about.append(f"the word {weights.info.placeholder} is in the text encoders' embeddings")
    return about, words


def _kept_rank(weights: AdapterWeights, rank: int | None, where: str) -> int | None:
    """Return how many ranks are merged; None for an adapter without ranks."""
    if not weights.low_rank:
        if rank is not None:
            raise UserError(
                f"{weights.info.method} has no ranks to choose from", where, "leave --rank out"
            )
        return None
    if rank is not None and rank > weights.rank:
        raise UserError(
            f"--rank {rank} is above the adapter's rank {weights.rank}",
            where=where,
            do=f"choose 1 to {weights.rank}, or leave --rank out for all",
        )
    return weights.rank if rank is None else rank


def _about_ranks(weights: AdapterWeights, keep: int) -> list[str]:
    schedule, full = weights.schedule, weights.rank
    about = [f"merged at rank {keep} of {full}, {len(weights.layers)} layers"]
    if schedule is None:
        about.append(f"whatever its rank schedule was, it is gone: rank {keep} at every timestep")
    elif not schedule.always_full:
        noisiest = schedule.active_rank(float(schedule.num_train_timesteps))
        kept = ". tlora convert --to comfyui keeps the schedule" if comfyui_keeps(weights) else ""
        about.append(
            f"the rank schedule is gone: {keep} ranks act at every timestep. Trained were "
            f"{noisiest} at the noisiest to {schedule.active_rank(0.0)} at the clearest{kept}"
        )
    return about


def _check_word(
    encoder: str, tokens: int, weights: AdapterWeights, whole: bool, where: str
) -> None:
    """Raise a UserError if a learned word of so many tokens can't be put into the embeddings."""
    placeholder = weights.info.placeholder
    if not whole:
        raise UserError(
            f"the adapter has learned the word {placeholder}, which belongs to the text encoders; "
            "a file of the denoiser alone can't hold it",
            where=where,
            do="give --output a folder",
        )
    if tokens != 1:
        raise UserError(
            f"the learned word {placeholder} is {tokens} tokens of {ENCODERS[encoder]}, and "
            "other words have them, too; only a word of one token can be put into the embeddings",
            where=where,
            do="use the adapter with tlora, or train it with a placeholder of one token",
        )


def _check_finite(denoiser: nn.Module, dtype: str) -> None:
    for name, parameter in denoiser.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UserError(
                f"{name} has numbers too large for {dtype}", where="--dtype", do="use --dtype fp32"
            )


def _write_folder(
    family: Family,
    pipeline: Any,
    base: Base,
    copied: Path | None,
    words: list[str],
    folder: Path,
    dtype: torch.dtype,
) -> None:
    """Write a diffusers folder: the base's other parts as they are, the denoiser new."""
    new = {family.denoiser: getattr(pipeline, family.denoiser)}
    if copied is None:
        for part in family.text_parts:
            if isinstance(encoder := getattr(pipeline, part), nn.Module):
                encoder.to(dtype=dtype)
        pipeline.save_pretrained(folder)
        return
    new |= {encoder: getattr(pipeline, encoder).to(dtype=dtype) for encoder in words}
    for path in _parts(copied):
        if path.name not in new:
            copy: Any = shutil.copytree if path.is_dir() else shutil.copyfile
            options = {"ignore": _NEEDLESS} if path.is_dir() else {}
            copy(path, folder / path.name, **options)
            continue
        # The configurations and tokenizers stay; weights of any form would stand beside the new.
        new[path.name].save_pretrained(folder / path.name, variant=base.variant)


def _parts(folder: Path) -> Iterator[Path]:
    """Yield what belongs to the pipeline in its folder."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    yield folder / "model_index.json"
    yield from (folder / name for name in sorted(index) if (folder / name).is_dir())


def _require_space(
    family: Family, base: Base, output: Path, whole: bool, dtype: torch.dtype
) -> None:
    """Raise a UserError if the disk is too small, before anything is loaded."""
    folder = base.path if base.path is not None and base.path.is_dir() else None
    shapes = str(folder) if folder else base.config
    needed = dtype.itemsize * _count(meta_denoiser(family.name, shapes))
    if whole and folder is not None:
        others = (part for part in _parts(folder) if part.name != family.denoiser)
        needed += sum(_size(part) for part in others)
    elif whole:
        needed += dtype.itemsize * text_parameters(family.name, shapes)
        needed += torch.float32.itemsize * _count(meta_vae(family.name, shapes))
    require_space(
        output.parent, needed, "the merged model", "free disk space, or choose another --output"
    )


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def known_dtype(name: str) -> None:
    """Raise a UserError unless weights can be merged in this number format."""
    if name in DTYPES:
        return
    reason = (
        "bf16 keeps 8 bits of a number, and an update is so small beside the weights that most of "
        "it would be rounded away"
    )
    raise UserError(
        reason if name == "bf16" else f"--dtype {name} is not known",
        where="--dtype",
        do="use --dtype fp32, or fp16, which tells what is lost; a program may load that in bf16",
    )
