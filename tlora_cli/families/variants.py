"""The parts of a base: whether they are those of its family, by what its files say.

A family's name stands for many models: for inpainting, control and editing, refiners, successors.
What counts is not what a pipeline is called, but which parts it has and what these take.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from tlora_cli.families import FAMILIES
from tlora_cli.families.mathematics import check_configs
from tlora_cli.families.spec import Family
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.families.text_length import said_lengths
from tlora_cli.foundation.errors import UserError

NO_CLASS = "a model_index.json that names no pipeline"
BESIDE = ("feature_extractor", "image_encoder", "safety_checker", "watermark")
"""Parts of diffusers' pipelines that text-to-image models may also have, and that are not used."""


def say(notes: Iterable[str]) -> None:
    """Warn of each of the sentences."""
    for note in notes:
        warnings.warn(note, stacklevel=3)


def is_of(family: Family, index: Mapping[str, Any]) -> bool:
    """Say whether an index names a pipeline of the family, or a variant of it.

    Variants such as StableDiffusionXLImg2ImgPipeline may hold the same parts. The names of several
    families may begin alike, as Flux and Flux2 do; the longest beginning says which it is.
    """
    named = str(index.get("_class_name"))
    lengths = [_length_that_fits(one, named) for one in FAMILIES.values()]
    return 0 < max(lengths) == _length_that_fits(family, named)


def _length_that_fits(family: Family, named: str) -> int:
    """Return the length of the beginning that a pipeline's name shares with the family's own."""
    beginnings = (_class_name(one).removesuffix("Pipeline") for one in _pipelines(family))
    return max(len(one) if named.startswith(one) else 0 for one in beginnings)


def _pipelines(family: Family) -> tuple[str, ...]:
    return (family.pipeline_class, *family.other_pipelines)


def pipeline_of(family: Family, index: Mapping[str, Any]) -> str:
    """Return the `module:class` of the family's pipeline that a base is run with."""
    named = index.get("_class_name")
    own = (one for one in _pipelines(family) if _class_name(one) == named)
    return next(own, family.pipeline_class)


def left_out(family: Family, index: Mapping[str, Any]) -> frozenset[str]:
    """Return the text encoders that a base does without by its index, with their tokenizers."""
    return frozenset(
        part
        for encoder in family.text_encoders
        if encoder.name in family.zeros_without and index.get(encoder.name) == [None, None]
        for part in (encoder.name, encoder.tokenizer)
    )


def check_index(family: Family, index: Mapping[str, Any], model: str) -> list[str]:
    """Return what should be said of a base by its index, in sentences.

    Args:
        family: the expected family.
        index: of model_index.json.
        model: the base, as it was given, for messages.

    Raises:
        UserError: if it is of another family, or lacks a part or has another in its place.
    """
    pipeline = index.get("_class_name")
    if not is_of(family, index):
        what = f"is a {pipeline}, not a {family.name} model" if pipeline else f"has {NO_CLASS}"
        owner = next((one.name for one in FAMILIES.values() if is_of(one, index)), None)
        change = f"set family: {owner}, or change the base" if owner else "change family or base"
        raise UserError(
            f"the base {model} {what}",
            where="base.model",
            do=change if pipeline else "get the base's files again",
        )
    wanted = {family.denoiser: _class_name(family.denoiser_class)}
    wanted["vae"] = _class_name(family.vae_class)
    lacking = left_out(family, index)
    for part in (family.denoiser, "vae", *family.text_parts):
        if part in lacking:
            continue
        entry = index.get(part)
        found = entry[-1] if isinstance(entry, list | tuple) and entry else None
        if found is None:
            raise _other(family, model, pipeline, f"has no {part}")
        if found != wanted.get(part, found):
            raise _other(family, model, pipeline, f"has a {found} in place of a {wanted[part]}")
    return list(_notes(family, index, model))


def _notes(family: Family, index: Mapping[str, Any], model: str) -> Iterator[str]:
    own = _class_name(pipeline_of(family, index))
    if index.get("_class_name") != own:
        yield (
            f"{model} is a {index['_class_name']}; it is trained and drawn as a {own}, from words "
            "alone"
        )
    known = (*family.text_parts, family.denoiser, "vae", "scheduler", *BESIDE)
    for part, entry in index.items():
        if part.startswith("_") or part in known or not isinstance(entry, list | tuple):
            continue
        if all(isinstance(name, str) for name in entry):  # else a setting, as numbers of layers
            yield f"{model} also has a part {part} ({entry[-1]}), which is left out"


def _other(family: Family, model: str, pipeline: object, what: str) -> UserError:
    return UserError(
        f"the base {model} ({pipeline}) is no {family.title} text-to-image model: it {what}",
        where="base.model",
        do=f"use the text-to-image base of the family, as {family.standard_base} is",
    )


def configs_of(family: Family, pipeline: Any) -> dict[str, Mapping[str, Any]]:
    """Return the configurations of the parts that a pipeline holds."""
    found: dict[str, Mapping[str, Any]] = {}
    for part in (family.denoiser, "vae", "scheduler", *family.encoder_names):
        held = getattr(pipeline, part, None)
        if held is not None:
            config = held.config
            found[part] = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return found


def look_at_folder(family: Family, folder: Path) -> list[str]:
    """Return what should be said of a base's folder by the configurations in it.

    A file that is missing or damaged is not looked at: loading tells of it.

    Raises:
        UserError: as `check_configs` does.
    """
    found = {}
    for part in (family.denoiser, "vae", "scheduler", *family.encoder_names):
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        try:
            config = json.loads((folder / part / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(config, dict):
            found[part] = config
    notes = check_configs(family, found) + said_lengths(family, folder)
    if "quantization_config" not in found.get(family.denoiser, {}):
        _check_weights(family, folder)
    return notes


def _check_weights(family: Family, folder: Path) -> None:
    """Raise a UserError if the denoiser's files hold what it does not take, such as scales.

    diffusers leaves such tensors out with a notice that is not shown.
    """
    files, names = sorted((folder / family.denoiser).glob("*.safetensors")), set[str]()
    if not files:  # a folder of configurations alone, or of pickles
        return
    try:
        for file in files:
            with safe_open(file, framework="pt") as opened:
                names.update(opened.keys())
        config = (folder / family.denoiser / "config.json").read_text(encoding="utf-8")
        wanted = _names_of_weights(family.name, str(folder), config)
    except Exception:  # loading tells of files that are damaged, and settings that make no model
        return
    if extra := sorted(names - wanted):
        raise UserError(
            f"the base's {family.denoiser} holds {len(extra)} tensors that a {family.title} "
            f"{family.denoiser} does not take, such as {extra[0]}: it is stored in a way that is "
            "not known, or is another model",
            where=str(folder / family.denoiser),
            do="use a base in fp32, fp16 or bf16 that save_pretrained wrote",
        )


@functools.lru_cache(maxsize=8)
def _names_of_weights(family: str, folder: str, config: str) -> frozenset[str]:
    """Return the names of a denoiser's weights; a run loads a base in parts, and asks each time."""
    del config  # with the folder it says which denoiser it is: an edited file is asked again
    return frozenset(meta_denoiser(family, folder).state_dict())


def _class_name(place: str) -> str:
    return place.rpartition(":")[2]
