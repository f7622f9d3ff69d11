"""The header of our adapter file: what sampling needs, and where the adapter comes from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tlora_cli.families import FAMILIES
from tlora_cli.formats.schedule_fields import (
    AXIS_VERSION,
    PLAIN_VERSION,
    TRAINED_VERSION,
    format_version,
    schedule_fields,
)
from tlora_cli.formats.weights import AdapterInfo, AdapterWeights
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.packages import PRODUCT, installed_version
from tlora_cli.foundation.untrusted_json import parse_json

AGAIN = "get the file again, or save it again from its checkpoint"


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


def header_of(weights: AdapterWeights, timestep_scale: float | None) -> dict[str, str]:
    """Return the header of a whole file."""
    if weights.low_rank:
        return {**peft_header(weights), **_own_fields(weights, timestep_scale, _ranks(weights))}
    return {"format": "pt", **_own_fields(weights, timestep_scale, {"blocks": weights.blocks})}


def trained_header(
    about: AdapterWeights, timestep_scale: float | None, more: Mapping[str, Any]
) -> dict[str, str]:
    """Return the header of a checkpoint's file, which no other program can load."""
    return {"format": "pt", **_own_fields(about, timestep_scale, {**_ranks(about), **more})}


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
    return texts(values) | described(weights.info)


def described(info: AdapterInfo) -> dict[str, str]:
    """Return the header's fields of where an adapter comes from."""
    return texts({f.name: getattr(info, f.name) for f in dataclasses.fields(info)})


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return fields as a header has them; what is None or empty is left out."""
    return {f"tlora.{k}": _as_text(v) for k, v in values.items() if v not in (None, {})}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def check_version(header: Mapping[str, str], path: Path) -> None:
    """Raise a UserError if a file is of a version that this program doesn't know."""
    known = PLAIN_VERSION, AXIS_VERSION, TRAINED_VERSION
    if header["tlora.format_version"] not in known:
        raise UserError(
            f"the adapter file has format version {header['tlora.format_version']!r}; "
            f"this tlora reads {PLAIN_VERSION} to {TRAINED_VERSION}",
            where=str(path),
            do="update tlora: pip install -U tlora",
        )


@contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Turn what reading a damaged header raises into a UserError."""
    try:
        yield
    except (KeyError, ValueError, TypeError, IndexError, OverflowError, RuntimeError) as error:
        raise UserError(
            f"the adapter's header is damaged ({type(error).__name__}: {error})",
            where=str(path),
            do=AGAIN,
        ) from error


def read_info(header: Mapping[str, str]) -> AdapterInfo:
    """Return where an adapter comes from.

    Raises:
        ValueError: if a field is of another kind than it should be.
    """
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
