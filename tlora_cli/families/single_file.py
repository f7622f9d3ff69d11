"""Load a base that is one .safetensors file, as model sites offer them; fully offline.

The file holds weights under their original names; a local diffusers folder gives the configuration
and the tokenizers. A file of some families holds every part, of others the denoiser only; text
encoders and VAE then come from the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tlora_cli.families import FAMILIES, Family
from tlora_cli.foundation.errors import UserError
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
    local: dict[str, Any] = {"config": str(folder), "local_files_only": True}
    parts: dict[str, Any] = dict(absent)
    if family.denoiser not in absent:
        options = {**local, "subfolder": family.denoiser, "dtype": dtype}
        loader = resolve(family.denoiser_class)
        parts[family.denoiser] = loader.from_single_file(str(file), **options)
    pipeline = resolve(family.pipeline_class)
    if not family.single_file_is_whole:
        dtypes = {"default": dtype, "vae": torch.float32}
        return pipeline.from_pretrained(str(folder), dtype=dtypes, **parts)
    if "vae" not in absent:
        parts["vae"] = resolve(family.vae_class).from_single_file(
            str(file), subfolder="vae", dtype=torch.float32, **local
        )
    return pipeline.from_single_file(str(file), dtype=dtype, **local, **parts)


def find_single_file(model: str, config: str | None) -> tuple[Path, Path]:
    """Return the file, and the folder that goes with it.

    Raises:
        UserError: if one is missing.
    """
    file = Path(model).expanduser()
    if not file.is_file():
        raise UserError(
            f"base not found: there is no file {model}", where="base.model", do="check the path"
        )
    if config is None:
        raise UserError(
            f"the single-file base {file.name} needs its configuration",
            where="base.config",
            do=f"name a diffusers folder of the same model there; {_what_folders_give()}",
        )
    folder = Path(config).expanduser()
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
