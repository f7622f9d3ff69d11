"""Our own file, which diffusers loads, too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tlora_cli.families import FAMILIES
from tlora_cli.formats import AdapterWeights, tlora_file


def write(path: Path, weights: AdapterWeights, sizes: Mapping[str, int]) -> list[str]:
    """Write the file; nothing is lost."""
    scale = FAMILIES[weights.family or ""].timestep_scale
    tlora_file.write(path, weights, timestep_scale=scale)
    return []
