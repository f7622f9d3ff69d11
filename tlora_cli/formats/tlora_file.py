"""Our adapter file: one safetensors file that stands alone.

Weights carry the diffusers/PEFT names, so stock diffusers loads the same file (unmasked). The
header has `lora_adapter_metadata` for that loader, and `tlora.*` keys with what sampling needs.
Methods that are no product of factors (OFT, SVDiff, ...) have their own parameters in it, as
`<layer>.tlora.<parameter>`; only tlora reads these.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad

from tlora_cli.families import FAMILIES
from tlora_cli.formats.common import fit_each_other
from tlora_cli.formats.schedule_fields import (
    AXIS_VERSION,
    PLAIN_VERSION,
    format_version,
    read_schedule,
    schedule_fields,
)
from tlora_cli.formats.spec import Format, Reader, Sizes
from tlora_cli.formats.weights import AdapterFile, AdapterInfo, AdapterWeights, Pair
from tlora_cli.formulas.convolution import as_matrices
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_atomically
from tlora_cli.foundation.packages import PRODUCT, installed_version
from tlora_cli.foundation.untrusted_json import parse_json

_PART = ".tlora."
"""Infix between a layer's name and that of a parameter which is no LoRA factor."""


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
    for name, parts in weights.parts.items():
        for part, tensor in parts.items():
            owner = name if name in family.encoder_names else f"{family.denoiser}.{name}"
            tensors[f"{owner}{_PART}{part}"] = _stored(tensor, dtype)
    header = _header(weights, timestep_scale)
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))


def peft_tensors(weights: AdapterWeights, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return the pairs under diffusers' and PEFT's names, all of one width."""
    prefix = FAMILIES[weights.family or ""].denoiser
    tensors = {}
    for name, pair in weights.layers.items():
        down, up = widened(pair, weights)
        tensors[f"{prefix}.{name}.lora_A.weight"] = _stored(down, dtype)
        tensors[f"{prefix}.{name}.lora_B.weight"] = _stored(up, dtype)
    return tensors


def peft_header(weights: AdapterWeights) -> dict[str, str]:
    """Return the header that tells diffusers rank and scale."""
    width = weights.rank * weights.copies
    prefix = FAMILIES[weights.family or ""].denoiser
    # alpha = r: scale 1 in every loader; fields that are no LoraConfig fields would be refused.
    peft = {
        f"{prefix}.r": width,
        f"{prefix}.lora_alpha": width,
        f"{prefix}.target_modules": sorted(weights.layers),
    }
    return {"format": "pt", "lora_adapter_metadata": json.dumps(peft)}


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


def _header(weights: AdapterWeights, timestep_scale: float | None) -> dict[str, str]:
    if weights.low_rank:
        return {**peft_header(weights), **_own_fields(weights, timestep_scale, _ranks(weights))}
    return {"format": "pt", **_own_fields(weights, timestep_scale, {"blocks": weights.blocks})}


def _ranks(weights: AdapterWeights) -> dict[str, Any]:
    schedule = weights.schedule
    assert schedule is not None, "an adapter without a schedule can't be written"
    return {"copies": weights.copies, **schedule_fields(schedule)}


def _own_fields(
    weights: AdapterWeights, timestep_scale: float | None, more: Mapping[str, Any]
) -> dict[str, str]:
    values: dict[str, Any] = {
        "format_version": format_version(weights.schedule),
        "family": weights.family,
        "timestep_scale": timestep_scale,
        **more,
        "versions": {name: installed_version(name) for name in (PRODUCT, "torch", "diffusers")},
    }
    return _texts(values) | _described(weights.info)


def _described(info: AdapterInfo) -> dict[str, str]:
    """Return the header's fields of where an adapter comes from."""
    return _texts({f.name: getattr(info, f.name) for f in dataclasses.fields(info)})


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {f"tlora.{k}": _as_text(v) for k, v in values.items() if v not in (None, {})}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def matches(keys: set[str], header: Mapping[str, str]) -> bool:
    """Whether the file is ours."""
    return "tlora.format_version" in header


def origin(
    keys: Collection[str], header: Mapping[str, str], path: Path
) -> tuple[str | None, AdapterInfo]:
    """Return the family and the training's description, from the header alone.

    Raises:
        UserError: if the header is damaged or from a newer version.
    """
    _check_version(header, path)
    with _damage_explained(path):
        family = header["tlora.family"]
        if family not in FAMILIES:
            raise ValueError(f"family is {family}")
        return family, _read_info(header)


def read(file: AdapterFile) -> AdapterWeights:
    """Return what our file says.

    Raises:
        UserError: if the header or the keys are damaged, or from a newer version.
    """
    header, tensors, path = file.header, file.tensors, file.path
    family, info = origin(tensors, header, path)
    if any(_PART in key for key in tensors):
        return _read_parts(file, family, info)
    with _damage_explained(path):
        prefix = f"{FAMILIES[family or ''].denoiser}."
        schedule = read_schedule(header)
        copies = int(header["tlora.copies"])
    layers = {
        key.removeprefix(prefix).removesuffix(".lora_A.weight"): (
            tensor,
            tensors.get(key.replace(".lora_A.", ".lora_B.")),
        )
        for key, tensor in tensors.items()
        if key.endswith(".lora_A.weight")
    }
    whole = {name: (a, b) for name, (a, b) in layers.items() if b is not None}
    expected = schedule.rank * copies
    if (
        not whole
        or len(whole) * 2 != len(tensors)
        or any(not fit_each_other(a, b) or a.shape[0] != expected for a, b in whole.values())
    ):
        raise UserError(
            f"the adapter's tensors do not fit its header (rank {schedule.rank}, copies {copies})",
            where=str(path),
            do="get the file again, or save it again from its checkpoint",
        )
    return AdapterWeights(whole, copies, schedule, family, info)


def _read_parts(file: AdapterFile, family: str | None, info: AdapterInfo) -> AdapterWeights:
    """Read the file of a method without ranks; its method knows what the parts mean."""
    kind = FAMILIES[family or ""]
    prefix = f"{kind.denoiser}."
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in file.tensors.items():
        layer, found, part = key.removeprefix(prefix).partition(_PART)
        if not found or not (key.startswith(prefix) or layer in kind.encoder_names):
            raise UserError(
                f"the adapter has a tensor of no known meaning: {key}",
                where=str(file.path),
                do="get the file again, or save it again from its checkpoint",
            )
        parts.setdefault(layer, {})[part] = tensor
    with _damage_explained(file.path):
        if info.method is None:
            raise ValueError("it names no method")
        blocks = parse_json(file.header.get("tlora.blocks", "null"))
        if blocks is not None and not isinstance(blocks, int):
            raise ValueError(f"blocks is {blocks}")
    return AdapterWeights({}, 1, None, family, info, parts, blocks)


def _check_version(header: Mapping[str, str], path: Path) -> None:
    if header["tlora.format_version"] not in (PLAIN_VERSION, AXIS_VERSION):
        raise UserError(
            f"the adapter file has format version {header['tlora.format_version']!r}; "
            f"this tlora reads {PLAIN_VERSION} and {AXIS_VERSION}",
            where=str(path),
            do="update tlora: pip install -U tlora",
        )


@contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
        raise UserError(
            f"the adapter's header is damaged ({type(error).__name__}: {error})",
            where=str(path),
            do="get the file again, or save it again from its checkpoint",
        ) from error


def _read_info(header: Mapping[str, str]) -> AdapterInfo:
    given: dict[str, Any] = {}
    for f in dataclasses.fields(AdapterInfo):
        text = header.get(f"tlora.{f.name}")
        if text is None:
            continue
        if str(f.type).startswith("str"):
            given[f.name] = text
            continue
        given[f.name] = parse_json(text)
        if not isinstance(given[f.name], dict if str(f.type).startswith("dict") else int):
            raise ValueError(f"{f.name} is {text}")
    return AdapterInfo(**given)


def copy_with_info(source: Path, target: Path, info: AdapterInfo) -> None:
    """Write one of our files again with another description; the tensors stay bit for bit.

    Args:
        source: our file.
        target: the new one.
        info: in place of what the file says of its origin.
    """
    with safe_open(source, "pt") as file:
        header = dict(file.metadata())
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    described = _described(info)
    fields = {f"tlora.{f.name}" for f in dataclasses.fields(AdapterInfo)}
    ours = {k: v for k, v in header.items() if k.startswith("tlora.") and k not in fields}
    loader = {key: header[key] for key in ("format", "lora_adapter_metadata") if key in header}
    header = {**loader, **ours, **described}
    write_atomically(target, lambda temporary: save_file(tensors, temporary, metadata=header))


def _convert(path: Path, weights: AdapterWeights, sizes: Sizes) -> list[str]:
    """Write the file, which diffusers loads too; nothing is lost."""
    write(path, weights, timestep_scale=FAMILIES[weights.family or ""].timestep_scale)
    return []


TLORA_FILE = Format(PRODUCT, Reader(matches, origin, read), _convert, low_rank_only=False)
