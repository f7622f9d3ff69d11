"""Load the pretrained model: a Hub repository, a diffusers folder, or one .safetensors file."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import BitsAndBytesConfig
from diffusers.quantizers import PipelineQuantizationConfig
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import hf_hub_download
from transformers.utils import logging as transformers_logging

from tlora_cli.families import FAMILIES
from tlora_cli.families.mathematics import check_configs
from tlora_cli.families.single_file import load_single_file
from tlora_cli.families.spec import Family
from tlora_cli.families.text_length import limit_lengths
from tlora_cli.families.variants import (
    NO_CLASS,
    check_index,
    configs_of,
    is_of,
    left_out,
    look_at_folder,
    pipeline_of,
    say,
)
from tlora_cli.foundation import bundled
from tlora_cli.foundation.errors import Status, UserError, known_names
from tlora_cli.foundation.files import expanded
from tlora_cli.foundation.hub import asking, is_hub_id
from tlora_cli.foundation.hub_errors import explained
from tlora_cli.foundation.plugins import resolve

PARTS = ("text", "vae", "denoiser")
"""Parts that can be loaded on their own; the scheduler's configuration always comes along."""

_INDEX = "model_index.json"


@dataclass(frozen=True)
class Base:
    """A pretrained model, by its place.

    Attributes:
        model: Hub id, diffusers folder, .safetensors file, or a bundle's base.
        revision: Hub branch, tag or commit.
        variant: weight variant, such as fp16.
        config: diffusers folder with the configuration of a single file.
    """

    model: str
    revision: str | None = None
    variant: str | None = None
    config: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether the model is one weights file."""
        return Path(self.model).suffix.lower() in (".safetensors", ".ckpt")

    @property
    def path(self) -> Path | None:
        """The local file or folder, or None for a Hub id.

        Raises:
            UserError: if it is a bundled model whose files are damaged.
        """
        if bundled.is_base(self.model):
            return bundled.model_folder(self.model)
        path = expanded(self.model)
        return path if path.exists() else None

    def absolute(self) -> Base:
        """Return the same base with local paths absolute, so that it is found from anywhere."""
        config = str(expanded(self.config).resolve()) if self.config else None
        local = self.path is not None and not bundled.is_base(self.model)
        model = str(self.path.resolve()) if self.path and local else self.model
        return Base(model, self.revision, self.variant, config)


def load_pipeline(
    family: Family,
    base: Base,
    *,
    parts: Collection[str] = PARTS,
    dtype: torch.dtype = torch.float32,
    quantization: str | None = None,
) -> Any:
    """Load the stock diffusers pipeline, or some parts of it (the others are None).

    Args:
        family: the expected family.
        base: where the model is.
        parts: of `PARTS`.
        dtype: of text encoders and denoiser; the VAE is always fp32, because SDXL's overflows in
            fp16 and it runs only once a picture.
        quantization: `nf4` or `int8` for the denoiser, through bitsandbytes.

    Raises:
        UserError: if the model is missing, gated, damaged, or of another family.
    """
    names = {"text": family.text_parts, "vae": ("vae",), "denoiser": (family.denoiser,)}
    absent = {name: None for part in PARTS if part not in parts for name in names[part]}
    quantized = quantization_config(quantization, dtype) if "denoiser" in parts else None
    if base.is_file and quantized is not None:
        # diffusers 0.42 takes a single file for one that is quantized already.
        raise UserError(
            "a single-file base can't be quantized while it is loaded",
            where="quantization",
            do="use a diffusers folder or a Hub id as the base, or drop quantization",
        )
    try:
        with asking(base.model):
            index = {} if base.is_file else read_index(base)
            if not base.is_file:
                _check(family, base, index)
            with no_load_bars(base.path is not None):
                pipeline = _load(family, base, index, absent, dtype, quantized)
        notes = limit_lengths(family, pipeline)
        if base.is_file or base.path is None:  # a folder's files were looked at before
            say(check_configs(family, configs_of(family, pipeline)) + notes)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a damaged or partial download makes the libraries raise
        raise explained(error, base.model, base.revision, base.variant) from error
    return pipeline


def _load(
    family: Family,
    base: Base,
    index: dict[str, Any],
    absent: dict[str, None],
    dtype: torch.dtype,
    quantized: BitsAndBytesConfig | None,
) -> Any:
    if base.is_file:
        return load_single_file(family, base.model, base.config, absent=absent, dtype=dtype)
    place = str(base.path or base.model)
    absent = absent | dict.fromkeys(left_out(family, index))
    options: dict[str, Any] = {**absent, **family.made_parts(place, base.revision)}
    if quantized is not None:
        mapping = {family.denoiser: quantized}
        options["quantization_config"] = PipelineQuantizationConfig(quant_mapping=mapping)
    return resolve(pipeline_of(family, index)).from_pretrained(
        place,
        revision=base.revision,
        variant=base.variant,
        dtype={"default": dtype, "vae": torch.float32},
        **options,
    )


def _check(family: Family, base: Base, index: dict[str, Any]) -> None:
    """Raise a UserError if a base's index or configurations, where they are here, don't fit."""
    notes = check_index(family, index, base.model)
    if base.path is not None:
        notes += look_at_folder(family, base.path)
    say(notes)


def family_of_base(base: Base) -> str:
    """Return the name of the family that a folder or repository belongs to.

    Raises:
        UserError: if it is of none, or a single file, which doesn't say.
    """
    if base.is_file:
        raise UserError(
            "neither the adapter nor the single-file base says its model family",
            where=base.model,
            do=f"convert the adapter first: tlora convert --family {next(iter(FAMILIES))}",
        )
    index = read_index(base)
    for family in FAMILIES.values():
        if is_of(family, index):
            return family.name
    named = index.get("_class_name")
    what = f"is a {named}, which tlora does not know" if named else f"has {NO_CLASS}"
    raise UserError(
        f"the base {base.model} {what}",
        where="base.model",
        do=f"use a base of one of these families: {', '.join(FAMILIES)}",
    )


def read_index(base: Base) -> dict[str, Any]:
    """Return the index of a folder or Hub repository: the names of its parts and their classes.

    Raises:
        UserError: if there is none, or the Hub doesn't give it.
    """
    path = base.path
    if path is None:
        file = _download_index(base)
    elif path.is_dir():
        file = path / _INDEX
    else:
        raise UserError(
            f"base {base.model} is neither a folder nor a .safetensors file",
            where="base.model",
            do="give a diffusers folder, a .safetensors file, or a Hub id",
        )
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"the folder {base.model} holds no diffusers model: {_INDEX} is missing",
            where="base.model",
            do="give the folder that save_pretrained or a Hub download made",
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{_INDEX} of the base can't be read: {error}", str(file), "download it again"
        ) from error
    if not isinstance(index, dict):
        raise UserError(f"{_INDEX} of the base is damaged", str(file), "download it again")
    return index


def _download_index(base: Base) -> Path:
    if not is_hub_id(base.model):
        raise UserError(
            f"base not found: {base.model}",
            where="base.model",
            do="give an existing folder or file, a Hub id such as "
            "stabilityai/stable-diffusion-xl-base-1.0, or a built-in model "
            f"({known_names(base.model, bundled.bases())})",
            kind=Status.MISSING,
        )
    try:
        with asking(base.model):
            return Path(hf_hub_download(base.model, _INDEX, revision=base.revision))
    except Exception as error:
        raise explained(error, base.model, base.revision, base.variant) from error


def quantization_config(kind: str | None, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """Return how bitsandbytes quantizes a denoiser, or None.

    Raises:
        UserError: if bitsandbytes is not installed.
    """
    if kind is None:
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"quantization {kind} needs bitsandbytes",
            where="train.quantization",
            do="pip install 'tlora[cuda]'",
            kind=Status.MISSING,
        )
    if kind == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    return BitsAndBytesConfig(load_in_8bit=True)


@contextmanager
def no_load_bars(local: bool) -> Iterator[None]:
    """Hide the libraries' bars while a local model loads; a download keeps its own."""
    if not local:
        yield
        return
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in (diffusers_logging, transformers_logging):
            library.enable_progress_bar()
