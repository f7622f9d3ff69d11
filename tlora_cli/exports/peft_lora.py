"""A plain LoRA as diffusers and PEFT write it: our own file without what only tlora reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file

from tlora_cli.exports.headers import mask_lost
from tlora_cli.formats import AdapterWeights
from tlora_cli.formats.tlora_file import peft_header, peft_tensors
from tlora_cli.foundation.files import write_atomically


def write(path: Path, weights: AdapterWeights, sizes: Mapping[str, int]) -> list[str]:
    """Write the file and return what it can't say."""
    tensors, header = peft_tensors(weights), peft_header(weights)
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))
    return mask_lost(weights)
