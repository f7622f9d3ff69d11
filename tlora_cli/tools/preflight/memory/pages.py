"""The pages of a base's files that a process on a CPU holds while it makes weights of them.

The libraries map files into memory. Where a file has the number format that the run computes in,
its pages are the weights. Else every number is read once and written in the other format, and the
pages stay until the last one is: a base in fp16 that runs in bf16 is there twice for a moment. The
system takes such pages back when memory is short, but counts them as the process's own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from tlora_cli.families import FAMILIES, Family
from tlora_cli.families.loading import Base
from tlora_cli.families.single_file_facts import SingleFile, look_into
from tlora_cli.foundation.devices import DTYPES
from tlora_cli.foundation.files import expanded
from tlora_cli.recipe.models import Recipe
from tlora_cli.tools.preflight.base_files import names_below
from tlora_cli.tools.preflight.base_parts import needed_parts
from tlora_cli.training.from_recipe import base_of

_OWN = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Number format by torch's name -> by that of safetensors."""


def pages_read(recipe: Recipe) -> int:
    """Return the bytes of the denoiser's files that are held beside the weights made of them.

    Pickles are not looked into, and nothing is known of a base that is not on this machine: 0.

    Raises:
        UserError: if a file is damaged.
    """
    own = _OWN[str(DTYPES[recipe.train.precision]).removeprefix("torch.")]
    return sum(
        math.prod(file.shapes[name]) * _bytes(file.formats[name])
        for file, names in _files(FAMILIES[recipe.family], base_of(recipe))
        for name in names
        if "F" in file.formats[name] and file.formats[name] != own
    )


def _bytes(number_format: str) -> int:
    """Return the bytes of a number: of F16 two, of F8_E4M3 one."""
    found = re.search(r"\d+", number_format)
    return int(found[0]) // 8 if found else 1


def _files(family: Family, base: Base) -> Iterator[tuple[SingleFile, list[str]]]:
    """Yield files, and the names in each that the denoiser is made of."""
    if base.is_file:
        path = expanded(base.model)
        if path.suffix.lower() == ".safetensors" and path.is_file():
            file = look_into(path)
            yield file, file.denoiser
        return
    folder = base.path or _cached(base)
    if folder is None or not folder.is_dir():
        return
    for part in needed_parts(family, names_below(folder), base.variant):
        if part.name == family.denoiser:
            for name in part.files:
                if name.endswith(".safetensors"):
                    file = look_into(folder / name)
                    yield file, list(file.shapes)


def _cached(base: Base) -> Path | None:
    """Return the folder of a Hub repository in the cache; None if there is none."""
    found = try_to_load_from_cache(base.model, "model_index.json", revision=base.revision)
    return Path(found).parent if isinstance(found, str) else None
