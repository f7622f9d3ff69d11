"""A format with a name for each factor: `<layer>/down` (r, in) and `<layer>/up` (out, r)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors.torch import save_file

from tlora_cli.formats.common import plain_lora, scaled_pair
from tlora_cli.formats.headers import mask_lost
from tlora_cli.formats.spec import Format, Origin, Reader, Sizes
from tlora_cli.formats.weights import AdapterFile, AdapterInfo, AdapterWeights
from tlora_cli.foundation.files import write_atomically


def matches(keys: set[str], header: Mapping[str, str]) -> bool:
    """Whether the header says that the file is flat."""
    return "flat.family" in header


def origin(keys: Collection[str], header: Mapping[str, str], path: Path) -> Origin:
    """Return the family that the header says."""
    return header["flat.family"], AdapterInfo(method="lora")


def read(file: AdapterFile) -> AdapterWeights:
    """Return the LoRA; a UserError tells of a factor that is missing or doesn't fit."""
    parts: dict[str, dict] = {}
    for key, tensor in file.tensors.items():
        layer, _, part = key.rpartition("/")
        parts.setdefault(layer, {})[part] = tensor
    layers = {name: scaled_pair(name, pair, 1.0, file.path) for name, pair in parts.items()}
    return plain_lora(layers, file.header["flat.family"], file.path)


def write(path: Path, weights: AdapterWeights, sizes: Sizes) -> list[str]:
    """Write the factors; what the file can't say is the rank schedule."""
    tensors = {}
    for layer, (down, up) in weights.layers.items():
        tensors |= {f"{layer}/down": down.float().clone(), f"{layer}/up": up.float().clone()}
    header = {"flat.family": weights.family or ""}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))
    return mask_lost(weights)


FLAT = Format("flat", Reader(matches, origin, read), write)
