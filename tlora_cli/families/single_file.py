"""Load a base that is one .safetensors file, as model sites offer them; fully offline.

The file holds weights under their original names; a local diffusers folder gives the configuration
and the tokenizers. A file of some families holds every part, of others the denoiser only; text
encoders and VAE then come from the folder.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tlora_cli.families import FAMILIES, Family
from tlora_cli.families.single_file_facts import (
    SingleFile,
    look_into,
    notes_of,
    scheduler_settings,
)
from tlora_cli.families.single_file_storage import check_tensors, scaled_tensors, scales_of
from tlora_cli.families.variants import left_out, look_at_folder, pipeline_of, say
from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.files import expanded
from tlora_cli.foundation.plugins import resolve


def load_single_file(
    family: Family,
    model: str,
    config: str | None,
    *,
    absent: dict[str, None],
    dtype: torch.dtype,
) -> Any:
    """Return the stock pipeline of a single file.

    Args:
        family: the expected family.
        model: the file.
        config: the diffusers folder that goes with it.
        absent: pipeline components to leave out.
        dtype: of everything but the VAE, which is fp32.

    Raises:
        UserError: if the file or the folder is missing.
    """
    file, folder = find_single_file(model, config)
    facts = look_at_single_file(family, file, folder)
    say(notes_of(family, facts) if facts else [f"{file.name} is a pickle; it is not looked into"])
    with _plain_ending(file) as named:
        loaded = _load(family, named, folder, facts, absent, dtype)
    if facts and (settings := scheduler_settings(family, facts)):
        config_now = {**loaded.scheduler.config, **settings}
        loaded.scheduler = type(loaded.scheduler).from_config(config_now)
    return loaded


def _load(
    family: Family,
    file: Path,
    folder: Path,
    facts: SingleFile | None,
    absent: dict[str, None],
    dtype: torch.dtype,
) -> Any:
    local: dict[str, Any] = {"config": str(folder), "local_files_only": True}
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    absent = absent | dict.fromkeys(left_out(family, index))
    parts: dict[str, Any] = {**absent, **family.made_parts(str(folder), None)}
    if family.denoiser not in absent:
        options = {**local, "subfolder": family.denoiser, "dtype": dtype}
        loader = resolve(family.denoiser_class)
        scaled = facts is not None and scales_of(facts)
        weights = scaled_tensors(facts, dtype) if facts and scaled else str(file)
        parts[family.denoiser] = loader.from_single_file(weights, **options)
    pipeline = resolve(pipeline_of(family, index))
    if not family.single_file_is_whole:
        dtypes = {"default": dtype, "vae": torch.float32}
        return pipeline.from_pretrained(str(folder), dtype=dtypes, **parts)
    if "vae" not in absent:
        parts["vae"] = resolve(family.vae_class).from_single_file(
            str(file), subfolder="vae", dtype=torch.float32, **local
        )
    return pipeline.from_single_file(str(file), dtype=dtype, **local, **parts)


@contextmanager
def _plain_ending(file: Path) -> Iterator[Path]:
    """Give the file under a name that ends in small letters, by which diffusers knows its kind."""
    if file.suffix == file.suffix.lower():
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"{file.stem}{file.suffix.lower()}"
        try:
            link.symlink_to(file.resolve())
        except OSError as error:
            raise UserError(
                f"diffusers does not know the base {file.name} by an ending in capital letters",
                where="base.model",
                do=f"rename it to {link.name}",
            ) from error
        yield link


def look_at_single_file(family: Family, file: Path, folder: Path) -> SingleFile | None:
    """Return what a file says of itself; None of a pickle, which is not looked into.

    Args:
        family: the expected family.
        file: the base.
        folder: the diffusers folder that goes with it.

    Raises:
        UserError: if file or folder are of another kind than the family, or hold what is not
            understood.
    """
    look_at_folder(family, folder)
    if file.suffix.lower() != ".safetensors":
        return None
    facts = look_into(file)
    scheduler_settings(family, facts)
    check_tensors(family, facts, folder)
    return facts


def find_single_file(model: str, config: str | None) -> tuple[Path, Path]:
    """Return the file, and the folder that goes with it.

    Raises:
        UserError: if one is missing.
    """
    file = expanded(model)
    if not file.is_file():
        raise UserError(
            f"base not found: there is no file {model}",
            where="base.model",
            do="check the path",
            kind=Status.MISSING,
        )
    if config is None:
        raise UserError(
            f"the single-file base {file.name} needs its configuration",
            where="base.config",
            do=f"name a diffusers folder of the same model there; {_what_folders_give()}",
        )
    folder = expanded(config)
    if not (folder / "model_index.json").is_file():
        raise UserError(
            f"the folder {config} holds no diffusers configuration: model_index.json is missing",
            where="base.config",
            do="name the folder that save_pretrained or a Hub download made",
        )
    return file, folder


def _what_folders_give() -> str:
    """Return what the folder is needed for, family by family."""
    words = {
        True: "its json and tokenizer files are enough",
        False: "it gives text encoders and VAE too",
    }
    told = (f"for {one.title} {words[one.single_file_is_whole]}" for one in FAMILIES.values())
    return ", ".join(told)
