"""A LoRA in the names of kohya's sd-scripts, which ComfyUI and A1111 also write and read.

Keys are `lora_unet_<path with underscores>.lora_down.weight`, `.lora_up.weight` and `.alpha`; the
update is alpha / rank times up down. `kohya_names` undoes the paths.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tlora_cli.formats.common import (
    DAMAGED,
    families_of,
    only_family,
    plain_lora,
    scaled_pair,
    warn_of_text_layers,
)
from tlora_cli.formats.foreign import refuse_unreadable
from tlora_cli.formats.kohya_names import PARTS_OF_ROWS, known_names
from tlora_cli.formats.weights import AdapterFile, AdapterInfo, AdapterWeights, Pair
from tlora_cli.foundation.errors import UserError
from tlora_cli.methods import PLAIN

PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")
"""kohya's, OneTrainer's for FLUX, and LyCORIS's."""

TEXT = "lora_te"
"""What names of text encoder layers begin with."""
_PARTS = {"lora_down.weight": "down", "lora_up.weight": "up", "alpha": "alpha"}


def matches(keys: set[str], header: Mapping[str, str]) -> bool:
    """Whether the tensors have kohya's names."""
    return any(key.startswith((*PREFIXES, TEXT)) for key in keys)


def origin(
    keys: Collection[str], header: Mapping[str, str], path: Path
) -> tuple[str | None, AdapterInfo]:
    """Return the family by the layers' names."""
    return only_family(bare(key) for key in keys), AdapterInfo(method=PLAIN)


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
        pair = scaled_pair(name, found, _scale(found), file.path)
        if name not in names:
            raise UserError(
                f"the adapter has a layer the model lacks: {name}",
                where=str(file.path),
                do="use the base model that the adapter was trained on",
            )
        layers |= _split_rows(name, pair, names[name], file.path)
    warn_of_text_layers(text, file.path)
    return plain_lora(layers, only_family(layers), file.path)


def bare(name: str) -> str:
    """Return a name without its prefix."""
    return name.removeprefix(next((p for p in PREFIXES if name.startswith(p)), ""))


def _parts(file: AdapterFile) -> dict[str, dict[str, Tensor]]:
    """Return kohya's name without prefix -> part -> tensor."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in file.tensors.items():
        name, _, part = key.partition(".")
        if name.startswith(TEXT):
            continue
        if not name.startswith(PREFIXES) or part not in _PARTS:
            raise UserError(
                f"the LoRA holds a tensor that is not known: {key}", str(file.path), DAMAGED
            )
        parts[bare(name)][_PARTS[part]] = tensor
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


def _scale(parts: dict[str, Tensor]) -> float:
    down, alpha = parts.get("down"), parts.get("alpha")
    if down is None or alpha is None or down.dim() != 2:  # what is wrong is told with the pair
        return 1.0
    return float(alpha.reshape(-1)[0]) / down.shape[0]


def _split_rows(name: str, pair: Pair, layers: tuple[str, ...], path: Path) -> dict[str, Pair]:
    """Return the pair of each of the layers that a fused layer drives.

    The rows of up belong to the layers in turn. Components that a layer's rows don't use are left
    out, so q, k and v that were fused as a block-diagonal of rank 3r come back with rank r.
    """
    down, up = pair
    if len(layers) == 1:
        return {layers[0]: pair}
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
    shares = [PARTS_OF_ROWS.get(layer.rsplit(".", 1)[-1], 1) for layer in layers]
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
