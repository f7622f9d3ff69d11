"""Our adapter file: one safetensors file that stands alone.

Weights carry the diffusers/PEFT names, so stock diffusers loads the same file (unmasked). The
header has `lora_adapter_metadata` for that loader, and `tlora.*` keys with what sampling needs.
Methods that are no product of factors (OFT, SVDiff, ...) have their own parameters in it, as
`<layer>.tlora.<parameter>`; only tlora reads these. So are a learned word's vectors,
`word.<encoder>.tlora.vectors`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad

from tlora_cli.families import FAMILIES, Family
from tlora_cli.formats.checkpoint_file import find_start, pairs_of, start_of
from tlora_cli.formats.common import fit_each_other
from tlora_cli.formats.schedule_fields import TRAINED_VERSION, read_schedule
from tlora_cli.formats.spec import Format, Reader, Sizes
from tlora_cli.formats.tlora_header import (
    AGAIN,
    check_version,
    damage_explained,
    described,
    header_of,
    read_info,
    trained_header,
)
from tlora_cli.formats.weights import AdapterFile, AdapterInfo, AdapterWeights, Pair
from tlora_cli.formulas.convolution import as_matrices
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_atomically
from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.foundation.untrusted_json import parse_json

PART = "tlora."
"""Before the name of a tensor that is no LoRA factor; a layer's name and a dot stand before it."""
WORD = "word."
"""Before the name of a text encoder, for what belongs to a learned word."""
VECTORS = f".{PART}vectors"
"""Behind the name of a text encoder: the vectors of a learned word."""
DOWN, UP = "lora_A.weight", "lora_B.weight"
"""Names of a layer's two factors."""

Parts: TypeAlias = dict[str, dict[str, Tensor]]
"""Name of a layer or text encoder -> name of a tensor -> the tensor."""


def write(
    path: Path,
    weights: AdapterWeights,
    *,
    timestep_scale: float | None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the adapter atomically.

    Args:
        path: the .safetensors file.
        weights: with family and schedule known.
        timestep_scale: what the denoiser's timestep is multiplied with to get t, if that is how.
        dtype: number format of the factors.
    """
    family = FAMILIES[weights.family or ""]
    tensors = peft_tensors(weights, dtype)
    for name, parts in (*weights.parts.items(), *weights.words.items()):
        for part, tensor in parts.items():
            tensors[key_of(family, name, f"{PART}{part}")] = _stored(tensor, dtype)
    header = header_of(weights, timestep_scale)
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))


def write_trained(
    path: Path,
    tensors: Mapping[str, Tensor],
    about: AdapterWeights,
    *,
    timestep_scale: float | None,
    start: str | None,
    kernels: Mapping[str, Sequence[int]],
) -> None:
    """Write a checkpoint's file, which holds what is trained; see `checkpoint_file.py`.

    Args:
        path: the .safetensors file.
        tensors: by `key_of`.
        about: the adapter without its tensors.
        timestep_scale: as in `write`.
        start: checksum of the start, which lies elsewhere; None if the method needs none.
        kernels: height and width, of layers that are convolutions.
    """
    more = {"format_version": TRAINED_VERSION, "start": start, "kernels": dict(kernels)}
    header = trained_header(about, timestep_scale, more)
    stored = {key: _stored(tensor, torch.float32) for key, tensor in tensors.items()}
    write_atomically(path, lambda temporary: save_file(stored, temporary, metadata=header))


def key_of(family: Family, name: str, part: str) -> str:
    """Return the key of a tensor of a layer, or of a text encoder with a learned word.

    Stock diffusers takes what begins with an encoder's own name for a LoRA of it, so a word's key
    begins with `WORD`; files of earlier versions have none.
    """
    owner = f"{WORD}{name}" if name in family.encoder_names else f"{family.denoiser}.{name}"
    return f"{owner}.{part}"


def peft_tensors(weights: AdapterWeights, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return the pairs under diffusers' and PEFT's names, all of one width."""
    prefix = FAMILIES[weights.family or ""].denoiser
    tensors = {}
    for name, pair in weights.layers.items():
        down, up = widened(pair, weights)
        tensors[f"{prefix}.{name}.{DOWN}"] = _stored(down, dtype)
        tensors[f"{prefix}.{name}.{UP}"] = _stored(up, dtype)
    return tensors


def widened(pair: Pair, weights: AdapterWeights) -> Pair:
    """Return the pair at the file's rank: components of zero are added where a layer has fewer."""
    down, up = pair
    missing = weights.rank - down.shape[0] // weights.copies
    if not missing:
        return pair
    copies, (flat, columns) = weights.copies, as_matrices(down, up)
    wide = pad(flat.reshape(copies, -1, flat.shape[1]), (0, 0, 0, missing)).flatten(0, 1)
    high = pad(columns.reshape(len(up), copies, -1), (0, missing)).flatten(1)
    return wide.view(-1, *down.shape[1:]), high.view(*high.shape, *up.shape[2:])


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # A copy of its own: safetensors refuses tensors that share memory.
    return tensor.detach().to("cpu", dtype, copy=True).contiguous()


def matches(keys: set[str], header: Mapping[str, str]) -> bool:
    """Whether the file is ours."""
    return "tlora.format_version" in header


def origin(
    keys: Collection[str], header: Mapping[str, str], path: Path
) -> tuple[str | None, AdapterInfo]:
    """Return the family and the training's description, from the header alone.

    Raises:
        UserError: if the header is damaged or from a newer version, or what a checkpoint leaves out
            is not beside it.
    """
    check_version(header, path)
    with damage_explained(path):
        family = header["tlora.family"]
        if family not in FAMILIES:
            raise ValueError(f"family is {family}")
        info = read_info(header)
    find_start(path, header, info)  # told before a base is loaded
    return family, info


def read(file: AdapterFile) -> AdapterWeights:
    """Return what our file says.

    Raises:
        UserError: if the header or the keys are damaged, or from a newer version.
    """
    header, tensors, path = file.header, file.tensors, file.path
    family, info = origin(tensors, header, path)
    if header["tlora.format_version"] == TRAINED_VERSION:
        return _read_trained(file, family, info)
    parts = _by_layer({key: tensors[key] for key in tensors if f".{PART}" in key}, family, path)
    words = _take_words(parts, family)
    if parts or len(words) == len(tensors):
        return _read_parts(file, family, info, parts, words)
    with damage_explained(path):
        prefix = f"{FAMILIES[family or ''].denoiser}."
        schedule = read_schedule(header)
        copies = int(header["tlora.copies"])
    layers = {
        key.removeprefix(prefix).removesuffix(f".{DOWN}"): (
            tensor,
            tensors.get(key.replace(DOWN, UP)),
        )
        for key, tensor in tensors.items()
        if key.endswith(f".{DOWN}")
    }
    whole = {name: (a, b) for name, (a, b) in layers.items() if b is not None}
    if len(whole) * 2 + sum(map(len, words.values())) != len(tensors):
        whole = {}
    return _checked(AdapterWeights(whole, copies, schedule, family, info, words=words), path)


def _checked(weights: AdapterWeights, path: Path) -> AdapterWeights:
    """Return low-rank weights whose pairs fit the header."""
    schedule, copies = weights.schedule, weights.copies
    assert schedule is not None
    expected = schedule.rank * copies
    if not weights.layers or any(
        not fit_each_other(a, b) or a.shape[0] != expected for a, b in weights.layers.values()
    ):
        raise UserError(
            f"the adapter's tensors do not fit its header (rank {schedule.rank}, copies {copies})",
            where=str(path),
            do=AGAIN,
        )
    return weights


def _read_trained(file: AdapterFile, family: str | None, info: AdapterInfo) -> AdapterWeights:
    """Read a checkpoint's file, and the start that it leaves out."""
    header, path = file.header, file.path
    parts = _by_layer(file.tensors, family, path)
    words = _take_words(parts, family)
    start = _by_layer(start_of(path, header, info), family, path)
    with damage_explained(path):
        schedule, copies = read_schedule(header), int(header["tlora.copies"])
        pairs = pairs_of(info.method, parts, start, header)
    return _checked(AdapterWeights(pairs, copies, schedule, family, info, words=words), path)


def _read_parts(
    file: AdapterFile, family: str | None, info: AdapterInfo, parts: Parts, words: Parts
) -> AdapterWeights:
    """Return what belongs to a method without ranks; it knows what its tensors mean."""
    header, path = file.header, file.path
    with damage_explained(path):
        if info.method is None:
            raise ValueError("it names no method")
        blocks = parse_json(header.get("tlora.blocks", "null"))
        if blocks is not None and not isinstance(blocks, int):
            raise ValueError(f"blocks is {blocks}")
    return AdapterWeights({}, 1, None, family, info, parts, words, blocks)


def _by_layer(tensors: Mapping[str, Tensor], family: str | None, path: Path) -> Parts:
    """Return tensors whose names have `PART` by layer and name."""
    kind = FAMILIES[family or ""]
    prefix = f"{kind.denoiser}."
    parts: Parts = {}
    for key, tensor in tensors.items():
        layer, found, part = key.removeprefix(prefix).removeprefix(WORD).partition(f".{PART}")
        if not found or not (key.startswith(prefix) or layer in kind.encoder_names):
            raise UserError(
                f"the adapter has a tensor of no known meaning: {key}", str(path), AGAIN
            )
        parts.setdefault(layer, {})[part] = tensor
    return parts


def _take_words(parts: Parts, family: str | None) -> Parts:
    """Take out and return what belongs to text encoders."""
    return {name: parts.pop(name) for name in FAMILIES[family or ""].encoder_names if name in parts}


def copy_with_info(source: Path, target: Path, info: AdapterInfo) -> None:
    """Write one of our files again with another description; the tensors stay bit for bit.

    The file of a checkpoint becomes a whole one.

    Args:
        source: our file.
        target: the new one.
        info: in place of what the file says of its origin.
    """
    with safe_open(source, "pt") as file:
        header = dict(file.metadata())
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if header["tlora.format_version"] == TRAINED_VERSION:
        weights = read(AdapterFile(source, header, tensors, ()))
        scale = FAMILIES[weights.family or ""].timestep_scale
        write(target, dataclasses.replace(weights, info=info), timestep_scale=scale)
        return
    fields = {f"tlora.{f.name}" for f in dataclasses.fields(AdapterInfo)}
    ours = {k: v for k, v in header.items() if k.startswith("tlora.") and k not in fields}
    loader = {key: header[key] for key in ("format", "lora_adapter_metadata") if key in header}
    header = {**loader, **ours, **described(info)}
    write_atomically(target, lambda temporary: save_file(tensors, temporary, metadata=header))


def _convert(path: Path, weights: AdapterWeights, sizes: Sizes) -> list[str]:
    """Write the file, which diffusers loads too; nothing is lost."""
    write(path, weights, timestep_scale=FAMILIES[weights.family or ""].timestep_scale)
    return []


TLORA_FILE = Format(
    PRODUCT, Reader(matches, origin, read), _convert, low_rank_only=False, words=True
)
