"""A plain LoRA as diffusers and PEFT write it.

Keys are `<denoiser>.<layer>.lora_A.weight` and `.lora_B.weight`, as in `unet.` or `transformer.`,
`base_model.model.` (PEFT itself), or the older `.lora.down.weight` and `.processor.to_q_lora.down`.
The scale is that of diffusers 0.42: from `lora_adapter_metadata` if the header has it, else
alpha / rank where the file has `.alpha` tensors, else 1.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tlora_cli.families import FAMILIES
from tlora_cli.formats.common import (
    DAMAGED,
    only_family,
    plain_lora,
    scaled_pair,
    warn_of_text_layers,
)
from tlora_cli.formats.foreign import refuse_unreadable
from tlora_cli.formats.headers import mask_lost
from tlora_cli.formats.spec import Format, Reader, Sizes
from tlora_cli.formats.tlora_file import peft_header, peft_tensors
from tlora_cli.formats.weights import AdapterFile, AdapterInfo, AdapterWeights
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_atomically
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.methods import PLAIN
from tlora_cli.recipe.mistakes import shown
from tlora_cli.recipe.strict_section import check_expression

OWN_PREFIX = "base_model.model."
"""Prefix that PEFT itself puts before a layer's name."""
PREFIXES = (*dict.fromkeys(f"{family.denoiser}." for family in FAMILIES.values()), OWN_PREFIX, "")
"""Prefixes that a layer's name may have; the first that fits counts."""

_KEY = re.compile(r"(?P<layer>.+?)[._](?P<part>lora_A|lora_B|lora\.down|lora\.up)\.weight")
MAX_REPEATS = 2
"""Wildcards of a pattern in a file: with more, and long names, matching takes long."""
_ALPHA = ".alpha"
_PARTS = {"lora_A": "down", "lora_B": "up", "lora.down": "down", "lora.up": "up"}


def matches(keys: set[str], header: Mapping[str, str]) -> bool:
    """Whether the file is a LoRA in diffusers' or PEFT's names."""
    return any(_KEY.fullmatch(key) for key in keys)


def origin(
    keys: Collection[str], header: Mapping[str, str], path: Path
) -> tuple[str | None, AdapterInfo]:
    """Return the family by the layers' names."""
    return only_family(_bare(key)[1] for key in keys), AdapterInfo(method=PLAIN)


def read(file: AdapterFile) -> AdapterWeights:
    """Return the LoRA, its scale folded in.

    Raises:
        UserError: for anything that is not a pair of factors of a layer.
    """
    refuse_unreadable(file.tensors, file.path)
    text = [key for key in file.tensors if key.startswith("text_encoder")]
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    prefixes = set()
    for key in file.tensors.keys() - set(text):
        prefix, layer, part = _split(key, file.path)
        parts[layer][part] = file.tensors[key]
        prefixes.add(prefix)
    settings = _settings(file, prefixes)
    layers = {
        layer: scaled_pair(layer, found, _scale(layer, found, settings, file.path), file.path)
        for layer, found in sorted(parts.items())
    }
    warn_of_text_layers(len(text), file.path)
    return plain_lora(layers, only_family(layers), file.path)


def _bare(key: str) -> tuple[str, str]:
    """Return the prefix, and what follows without the older names' `processor`."""
    prefix = next(prefix for prefix in PREFIXES if key.startswith(prefix))
    return prefix, key.removeprefix(prefix).replace(".processor.", ".")


def _split(key: str, path: Path) -> tuple[str, str, str]:
    """Return prefix, layer name as in the denoiser, and `down`, `up` or `alpha`."""
    prefix, name = _bare(key)
    if name.endswith(_ALPHA):
        return prefix, re.sub(r"[._]lora$", "", name.removesuffix(_ALPHA)), "alpha"
    match = _KEY.fullmatch(name)
    if match is None:
        raise UserError(
            f"the LoRA holds a tensor that is not known: {key}", where=str(path), do=DAMAGED
        )
    layer = match["layer"]
    if layer.endswith(".to_out"):  # the older names leave out the index
        layer += ".0"
    return prefix, layer, _PARTS[match["part"]]


def _settings(file: AdapterFile, prefixes: set[str]) -> dict[str, Any]:
    """Return the fields of PEFT's LoraConfig that set the scale; empty if the file has none."""
    try:
        if OWN_PREFIX in prefixes:
            beside = file.path.with_name("adapter_config.json")
            found = parse_json(beside.read_text(encoding="utf-8"))
        else:
            stored = parse_json(file.header.get("lora_adapter_metadata", "{}"))
            prefix = max(prefixes, default="")
            found = {
                key.removeprefix(prefix): value
                for key, value in stored.items()
                if key.startswith(prefix)
            }
        settings: dict[str, Any] = {
            "r": int(found.get("r", 8)),
            "alpha": float(found.get("lora_alpha", 8)),
            "ranks": dict(found.get("rank_pattern") or {}),
            "alphas": dict(found.get("alpha_pattern") or {}),
            "rslora": bool(found.get("use_rslora")),
        }
        for pattern in (*settings["ranks"], *settings["alphas"]):
            _check_pattern(pattern)
    except FileNotFoundError as error:
        raise UserError(
            "the LoRA's scale is not known: PEFT's adapter_config.json is not beside it",
            where=str(file.path),
            do="put adapter_config.json into the same folder",
        ) from error
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(
            f"the LoRA's metadata is damaged ({type(error).__name__}: {error})",
            where=str(file.path),
            do=DAMAGED,
        ) from error
    return settings if found else {}


def _scale(layer: str, parts: dict[str, Tensor], settings: dict[str, Any], path: Path) -> float:
    stored = parts.pop("alpha", None)
    down = parts.get("down")
    if down is None or down.dim() < 2 or not (settings or stored is not None):
        return 1.0
    rank = down.shape[0]
    alpha = None if stored is None else float(stored.reshape(-1)[0])
    if not settings:
        assert alpha is not None
        return alpha / max(rank, 1)
    stated = int(_by_pattern(settings["ranks"], layer, settings["r"]))
    if stated != rank:
        raise UserError(
            f"the LoRA's metadata says rank {stated} for {layer}, but its factors have {rank}",
            where=str(path),
            do=DAMAGED,
        )
    stated_alpha = float(_by_pattern(settings["alphas"], layer, settings["alpha"]))
    if alpha is not None and alpha != stated_alpha:
        raise UserError(
            f"the LoRA says alpha {stated_alpha:g} in its metadata but {alpha:g} beside {layer}",
            where=str(path),
            do="remove one of the two",
        )
    return stated_alpha / (math.sqrt(rank) if settings["rslora"] else rank)


def _check_pattern(pattern: str) -> None:
    """Raise a ValueError for what is no pattern, or could take forever to match.

    PEFT's patterns are names, or `.*` and `(a|b)` with names around them.
    """
    check_expression(pattern)
    repeats = re.findall(r"[*+{?]", pattern.replace("(?:", "("))
    if len(repeats) > MAX_REPEATS or re.search(r"\)[*+{]", pattern):
        raise ValueError(f"the pattern {shown(pattern)} repeats too much")


def _by_pattern(patterns: dict[str, Any], layer: str, default: Any) -> Any:
    """Return the value of the first pattern that matches the end of the layer's name, as PEFT."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", layer):
            return value
    return default


def write(path: Path, weights: AdapterWeights, sizes: Sizes) -> list[str]:
    """Write the file, which is tlora's own without what only tlora reads; return what is lost."""
    tensors, header = peft_tensors(weights), peft_header(weights)
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))
    return mask_lost(weights)


PEFT = Format("diffusers", Reader(matches, origin, read, generic=True), write)
