"""A LoRA in the names of kohya's sd-scripts, which ComfyUI and A1111 also write and read.

Keys are `lora_unet_<path with underscores>.lora_down.weight`, `.lora_up.weight` and `.alpha`; the
update is alpha / rank times up down. `kohya_names` undoes the paths. Of a convolution, down is one
of the same kernel and up one of 1 x 1 (LoCon).

Written are the names that kohya's own trainer has, which are the original model's. Where queries,
keys and values are one layer there, their factors are fused as a block-diagonal of three times the
rank, which is the same update. alpha is the rank, so every reader's scale is 1.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tlora_cli.families import FAMILIES, Family
from tlora_cli.families.facts import Kohya as KohyaFacts
from tlora_cli.formats.common import (
    DAMAGED,
    alpha_of,
    families_of,
    only_family,
    plain_lora,
    scaled_pair,
    warn_of_text_layers,
)
from tlora_cli.formats.foreign import lacking, refuse_unreadable
from tlora_cli.formats.headers import mask_lost, model_spec
from tlora_cli.formats.kohya_names import known_names, share_of_rows, turned
from tlora_cli.formats.lora_names import parse
from tlora_cli.formats.spec import Format, Reader, Sizes
from tlora_cli.formats.weights import AdapterFile, AdapterInfo, AdapterWeights, Pair
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_atomically
from tlora_cli.methods import PLAIN

PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")
"""kohya's, OneTrainer's for FLUX, and LyCORIS's; the first is written."""

TEXT = "lora_te"
"""Beginnings of the names of text encoder layers."""


def matches(keys: set[str], header: Mapping[str, str]) -> bool:
    """Whether the tensors have kohya's names."""
    return any(key.startswith((*PREFIXES, TEXT)) for key in keys)


def origin(
    keys: Collection[str], header: Mapping[str, str], path: Path
) -> tuple[str | None, AdapterInfo]:
    """Return the family by the layers' names."""
    return only_family(map(bare, keys), header), AdapterInfo(method=PLAIN)


def read(file: AdapterFile) -> AdapterWeights:
    """Return the LoRA under the denoiser's names, alpha folded in.

    Raises:
        UserError: for other kinds of adapter, and for layers that the denoiser lacks.
    """
    refuse_unreadable(file.tensors, file.path)
    text = sum(key.startswith(TEXT) for key in file.tensors)
    parts = _parts(file)
    names = known_names(file.layer_names)
    check_family(parts, file)
    layers: dict[str, Pair] = {}
    for name, found in sorted(parts.items()):
        pair = scaled_pair(name, found, _scale(name, found, file.path), file.path)
        if name not in names:
            raise lacking(name, file.path)
        layers |= split_rows(name, pair, names[name], file.path)
    weights = plain_lora(layers, only_family(layers, file.header), file.path)
    warn_of_text_layers(text, file.path)
    return weights


def placed(
    name: str,
    pair: Pair,
    layer_names: Collection[str],
    names: Mapping[str, tuple[str, ...]],
    path: Path,
) -> dict[str, Pair]:
    """Return the layers that a name with dots means, each with its pair.

    Args:
        name: in diffusers' or in the original model's naming.
        pair: its factors.
        layer_names: the denoiser's layers; empty if they are not known.
        names: of `known_names`.
        path: of the file, for messages.
    """
    if name not in layer_names and (plain := name.removesuffix(".0")) in layer_names:
        name = plain  # `to_out` without an index, which `parse` took for an older name
    alias = name.replace(".", "_")
    if name in layer_names or alias not in names:
        return {name: pair}
    return split_rows(alias, pair, names[alias], path)


def bare(name: str) -> str:
    """Return a name without its prefix."""
    return name.removeprefix(next((p for p in PREFIXES if name.startswith(p)), ""))


def _parts(file: AdapterFile) -> dict[str, dict[str, Tensor]]:
    """Return kohya's name without prefix -> part -> tensor."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in file.tensors.items():
        if key.startswith(TEXT):
            continue
        name = parse(key)
        if name is None or not name.layer.startswith(PREFIXES):
            raise UserError(
                f"the LoRA holds a tensor that is not known: {key}", str(file.path), DAMAGED
            )
        parts[bare(name.layer).replace(".", "_")][name.part] = tensor
    return parts


def check_family(names: Mapping[str, object], file: AdapterFile) -> None:
    """Raise a UserError if the names are those of another family than the model."""
    own, wanted = families_of(names), families_of(file.layer_names)
    if own and wanted and not own & wanted:
        raise UserError(
            f"the adapter is for {min(own)}, the model is {min(wanted)}",
            where=str(file.path),
            do=f"use it with a {min(own)} base",
        )


def _scale(name: str, parts: dict[str, Tensor], path: Path) -> float:
    down, alpha = parts.get("down"), parts.get("alpha")
    if down is None or alpha is None or down.dim() < 2:  # what is wrong is told with the pair
        return 1.0
    return alpha_of(name, alpha, path) / down.shape[0]


def split_rows(name: str, pair: Pair, layers: tuple[str, ...], path: Path) -> dict[str, Pair]:
    """Return the pair of each of the layers that a layer of the original model drives.

    The rows of up belong to the layers in turn. Components that a layer's rows don't use are left
    out, so q, k and v that were fused as a block-diagonal of rank 3r come back with rank r.
    """
    down, up = pair
    if len(layers) == 1:
        return {layers[0]: (down, turned(name, up))}
    split = {}
    for layer, rows in zip(layers, rows_of_layers(name, up, layers, path), strict=True):
        used = rows.any(dim=0)
        if used.any():
            split[layer] = (down[used], rows[:, used])
    return split


def rows_of_layers(
    name: str, up: Tensor, layers: tuple[str, ...], path: Path
) -> tuple[Tensor, ...]:
    """Return the rows of up that belong to each of the layers that a fused layer drives.

    Raises:
        UserError: if they do not split.
    """
    shares = [share_of_rows(layer) for layer in layers]
    if len(layers) == 1:
        return (up,)
    unit, rest = divmod(up.shape[0], sum(shares))
    if rest:
        raise UserError(
            f"layer {name} has {up.shape[0]} outputs, which do not split into {len(layers)} layers",
            where=str(path),
            do=DAMAGED,
        )
    return torch.split(up, [unit * share for share in shares])


# --- writing -----------------------------------------------------------------------------------


def write(path: Path, weights: AdapterWeights, sizes: Sizes) -> list[str]:
    """Write the file and return what it can't say.

    Args:
        path: the .safetensors file.
        weights: with family and schedule.
        sizes: outputs of the denoiser's linear layers and convolutions; fused layers need those of
            their parts.

    Raises:
        UserError: if kohya's names for the family are not known.
    """
    family = FAMILIES[weights.family or ""]
    tensors = kohya_tensors(weights.layers, family, sizes)
    own = _facts(family)
    widths = {len(down) for down, _ in weights.layers.values()}
    conv = {"conv_dim": str(max(widths)), "conv_alpha": str(max(widths))}
    convolves = any(down.dim() > 2 for down, _ in weights.layers.values())
    header = {
        "format": "pt",
        **({"ss_network_args": json.dumps(conv)} if convolves else {}),
        "ss_network_module": own.network_module,
        "ss_network_dim": str(max(widths)),
        "ss_network_alpha": str(max(widths)),
        "ss_base_model_version": own.base_version,
        **model_spec(weights),
    }
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))
    return mask_lost(weights)


def _facts(family: Family) -> KohyaFacts:
    if family.kohya is None:
        raise UserError(
            f"how kohya's sd-scripts name the layers of {family.title} is not known",
            do="use --to diffusers",
        )
    return family.kohya


def kohya_tensors(layers: Mapping[str, Pair], family: Family, sizes: Sizes) -> dict[str, Tensor]:
    """Return name -> tensor, in kohya's names.

    Args:
        layers: name -> factors.
        family: of the model.
        sizes: outputs of the denoiser's linear layers and convolutions.

    Raises:
        UserError: if kohya's names for the family are not known.
    """
    tensors: dict[str, Tensor] = {}
    own = {name.replace(".", "_"): (name,) for name in layers}
    named = own if _facts(family).own_names else _grouped(layers, sizes)
    for name, members in named.items():
        if len(members) == 1:
            down, up = (factor.float().clone() for factor in layers[members[0]])
            up = turned(name, up)
        else:
            down, up = _fused([(layers.get(one), sizes[one]) for one in members])
        stem = PREFIXES[0] + name
        tensors[f"{stem}.lora_down.weight"] = down.contiguous()
        tensors[f"{stem}.lora_up.weight"] = up.contiguous()
        tensors[f"{stem}.alpha"] = torch.tensor(float(len(down)))
    return tensors


def _grouped(layers: Mapping[str, Pair], sizes: Sizes) -> dict[str, tuple[str, ...]]:
    """Return kohya's name -> the layers it drives, in the order of their rows."""
    # Of a layer's names the original model's is the one that stands for most layers; of two for
    # the layer alone, it is the one that isn't diffusers' with underscores.
    found: dict[str, tuple[str, ...]] = {}
    names = known_names(list(sizes))
    for layer in layers:
        own = [alias for alias, members in names.items() if layer in members]
        alias = max(own, key=lambda a: (len(names[a]), a != layer.replace(".", "_")))
        found[alias] = names[alias]
    return found


def _fused(parts: list[tuple[Pair | None, int]]) -> Pair:
    """Return the factors of layers stacked by their rows; one that is not adapted has none."""
    present = [pair for pair, _ in parts if pair is not None]
    width = sum(len(down) for down, _ in present)
    down = torch.cat([down.float() for down, _ in present])
    up = torch.zeros(sum(size for _, size in parts), width)
    row = column = 0
    for pair, size in parts:
        if pair is not None:
            rank = len(pair[0])
            up[row : row + size, column : column + rank] = pair[1].float()
            column += rank
        row += size
    return down, up


KOHYA = Format("kohya", Reader(matches, origin, read, generic=True), write)
