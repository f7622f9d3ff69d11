"""A plain LoRA as diffusers and PEFT write it.

Keys are `<denoiser>.<layer>.lora_A.weight` and `.lora_B.weight`, as in `unet.` or `transformer.`,
or any that `lora_names.py` knows, also of the original model's layers, which may drive several. The
scale is that of diffusers 0.42: from `lora_adapter_metadata` if the header has it, else
alpha / rank where the file has `.alpha` tensors, else 1.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tlora_cli.formats.common import (
    DAMAGED,
    alpha_of,
    only_family,
    plain_lora,
    scaled_pair,
    warn_of_text_layers,
)
from tlora_cli.formats.foreign import refuse_other_models, refuse_unreadable
from tlora_cli.formats.headers import mask_lost
from tlora_cli.formats.kohya import PREFIXES as KOHYA_PREFIXES
from tlora_cli.formats.kohya import placed
from tlora_cli.formats.kohya_names import known_names
from tlora_cli.formats.lora_names import OWN_PREFIX, bare, is_of_text, parse
from tlora_cli.formats.spec import Format, Reader, Sizes
from tlora_cli.formats.tlora_file import peft_tensors
from tlora_cli.formats.tlora_header import peft_header
from tlora_cli.formats.weights import AdapterFile, AdapterInfo, AdapterWeights, Pair
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_atomically
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.methods import PLAIN
from tlora_cli.recipe.mistakes import shown
from tlora_cli.recipe.strict_section import check_expression

MAX_REPEATS = 2
"""Wildcards of a pattern in a file: with more, and long names, matching takes long."""
RESIDUAL = re.compile(r"pissa|olora|corda|loftq")
"""PEFT's starts that also change the base's weights: the factors alone are no update of it."""
_ORIGINAL = re.compile(r"(double|single|input|output)_blocks\.|middle_block\.")


def matches(keys: set[str], header: Mapping[str, str]) -> bool:
    """Whether the file is a LoRA in names with dots: diffusers', PEFT's or the original ones."""
    own = (key for key in keys if not key.startswith(KOHYA_PREFIXES) and not is_of_text(key))
    return any((name := parse(key)) is not None and name.part != "alpha" for key in own)


def origin(
    keys: Collection[str], header: Mapping[str, str], path: Path
) -> tuple[str | None, AdapterInfo]:
    """Return the family by the layers' names."""
    return only_family((bare(key)[1] for key in keys), header), AdapterInfo(method=PLAIN)


def read(file: AdapterFile) -> AdapterWeights:
    """Return the LoRA, its scale folded in.

    Raises:
        UserError: for anything that is not a pair of factors of a layer.
    """
    refuse_unreadable(file.tensors, file.path)
    text = {key for key in file.tensors if is_of_text(key)}
    twice = {key for key in file.tensors if key.startswith(KOHYA_PREFIXES)} - text
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    prefixes, adapters, places = set(), set(), known_names(file.layer_names)
    for key in sorted(file.tensors.keys() - text - twice):
        name = parse(key)
        if name is None:
            raise UserError(
                f"the LoRA holds a tensor that is not known: {key}", str(file.path), DAMAGED
            )
        if name.part in parts[name.layer]:
            raise UserError(
                f"the LoRA holds layer {name.layer} twice, the second time as {key}",
                where=str(file.path),
                do="save one of the adapters alone",
            )
        parts[name.layer][name.part] = file.tensors[key]
        prefixes.add(name.prefixes)
        adapters.update({name.adapter} - {None})
    if len(adapters) > 1:
        raise UserError(
            f"the file holds {len(adapters)} adapters: {', '.join(sorted(map(str, adapters)))}",
            where=str(file.path),
            do="save one of them alone",
        )
    if file.layer_names:
        refuse_other_models(parts, file.layer_names, file.path)
    settings = _settings(file, prefixes, parts)
    layers: dict[str, Pair] = {}
    for layer, found in sorted(parts.items()):
        scale = _scale(layer, found, settings, file.path)
        pair = scaled_pair(layer, found, scale, file.path)
        layers |= placed(layer, pair, file.layer_names, places, file.path)
    weights = plain_lora(layers, only_family(layers, file.header), file.path)
    warn_of_text_layers(len(text), file.path)
    if twice:
        warnings.warn(
            f"{file.path.name} also holds {len(twice)} tensors in kohya's names, such as "
            f"{min(twice)}; they are left out",
            stacklevel=2,
        )
    return weights


def _settings(
    file: AdapterFile, prefixes: Collection[tuple[str, ...]], parts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the fields of PEFT's LoraConfig that set the scale; empty if the file has none."""
    beside = file.path.with_name("adapter_config.json")
    own = any(OWN_PREFIX in one for one in prefixes)
    try:
        if own and beside.is_file():
            found = parse_json(beside.read_text(encoding="utf-8"))
        else:
            stored = parse_json(file.header.get("lora_adapter_metadata", "{}"))
            prefix = max((one[0] for one in prefixes if one), default="")
            found = {
                key.removeprefix(prefix): value
                for key, value in stored.items()
                if key.startswith(prefix)
            }
            scaled = found or all("alpha" in one for one in parts.values())
            if own and not scaled:
                _check_scale_said(file, prefixes, parts)
        _check_kind(found, file.path)
        settings: dict[str, Any] = {
            "r": int(found.get("r", 8)),
            "alpha": float(found.get("lora_alpha", 8)),
            "ranks": dict(found.get("rank_pattern") or {}),
            "alphas": dict(found.get("alpha_pattern") or {}),
            "rslora": bool(found.get("use_rslora")),
        }
        for pattern in (*settings["ranks"], *settings["alphas"]):
            _check_pattern(pattern)
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(
            f"the LoRA's metadata is damaged ({type(error).__name__}: {error})",
            where=str(file.path),
            do=DAMAGED,
        ) from error
    return settings if found else {}


def _check_scale_said(
    file: AdapterFile, prefixes: Collection[tuple[str, ...]], parts: Mapping[str, Any]
) -> None:
    """Raise a UserError for a file of PEFT's own that says no scale; warn where it is taken as 1.

    In the original model's names such files are fal's, whose scale is 1 (diffusers 0.42).
    """
    outermost = all(one[:1] == (OWN_PREFIX,) for one in prefixes)
    if outermost and not all(_ORIGINAL.match(layer) for layer in parts):
        raise UserError(
            "the LoRA's scale is not known: PEFT's adapter_config.json is not beside it",
            where=str(file.path),
            do="put adapter_config.json into the same folder",
        )
    warnings.warn(
        f"{file.path.name} does not say its scale (alpha); it is taken as 1, as diffusers does",
        stacklevel=2,
    )


def _check_kind(settings: Mapping[str, Any], path: Path) -> None:
    """Raise a UserError for a configuration of PEFT's that is not of a plain LoRA."""
    kind, start = settings.get("peft_type", "LORA"), settings.get("init_lora_weights")
    if str(kind).rpartition(".")[2] != "LORA":
        raise UserError(
            f"the file is an adapter of PEFT's kind {kind}, which tlora can't apply",
            where=str(path),
            do="use a LoRA",
        )
    if isinstance(start, str) and RESIDUAL.match(start.lower()):
        raise UserError(
            f"the LoRA began as {start}, which also changes the base's weights: its factors alone "
            "are no update of the base",
            where=str(path),
            do="save it with PEFT's path_initial_model_for_weight_conversion, as a plain LoRA",
        )


def _scale(layer: str, parts: dict[str, Tensor], settings: dict[str, Any], path: Path) -> float:
    stored = parts.pop("alpha", None)
    down = parts.get("down")
    if down is None or down.dim() < 2 or not (settings or stored is not None):
        return 1.0
    rank = down.shape[0]
    alpha = None if stored is None else alpha_of(layer, stored, path)
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
