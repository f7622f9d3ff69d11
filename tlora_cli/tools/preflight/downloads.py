"""The size of a base that isn't here yet, and how long it takes to fetch from the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from huggingface_hub import try_to_load_from_cache

from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base
from tlora_cli.families.standard import meta_denoiser, text_parameters
from tlora_cli.foundation.bundled import is_base
from tlora_cli.foundation.durations import rounded
from tlora_cli.tools.preflight.findings import Finding, gigabytes, ok

RATE = 100e6 / 8
"""Bytes a second of the line that times are said for: 100 Mbit/s."""


def fetching_time(size: float) -> str:
    """Return in words how long so many bytes take."""
    return f"{rounded(size / RATE)} at 100 Mbit/s"


def look_at_download(family_name: str, base: str) -> Iterator[Finding]:
    """Yield what is to be fetched for a known base that isn't on this machine, not asking the Hub.

    Args:
        family_name: of the base.
        base: as a recipe names it.
    """
    size = known_size(family_name, base)
    if size is None or is_here(family_name, base):
        return
    told = f"{base} is not on this machine: about {gigabytes(size)} come from the Hub"
    yield ok("download", f"{told}, {fetching_time(size)}")


def is_here(family_name: str, base: str) -> bool:
    """Whether a base is built in, a file or folder, or in the Hub's cache, perhaps not whole."""
    place = Base(base)
    if is_base(base) or place.is_file or place.path is not None:
        return True
    weights = f"{FAMILIES[family_name].denoiser}/config.json"  # comes with them, not before
    return isinstance(try_to_load_from_cache(base, weights), str)


@cache
def known_size(family_name: str, base: str) -> float | None:
    """Return about how many bytes of a known base are loaded; None of any other.

    Of the family's standard base it is a fact; of others, that in proportion to the parameters.
    """
    family = FAMILIES[family_name]
    standard = family.standard_gigabytes * 1e9
    if base == family.standard_base:
        return standard
    if base not in family.other_bases:
        return None
    return standard * _parameters(family_name, base) / _parameters(family_name, None)


def _parameters(family_name: str, base: str | None) -> int:
    own = sum(tensor.numel() for tensor in meta_denoiser(family_name, base).parameters())
    return own + text_parameters(family_name, base)
