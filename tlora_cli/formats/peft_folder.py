"""A LoRA as PEFT itself saves it: `adapter_model.safetensors` with `adapter_config.json` beside.

Keys are `base_model.model.<layer>.lora_A.weight` and `.lora_B.weight`. It is read as diffusers'
files are (`peft.py`). alpha is the rank, so the scale is 1.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from tlora_cli.families import FAMILIES
from tlora_cli.formats.headers import mask_lost
from tlora_cli.formats.lora_names import OWN_PREFIX
from tlora_cli.formats.spec import Format, Sizes
from tlora_cli.formats.tlora_file import peft_tensors
from tlora_cli.formats.weights import AdapterWeights
from tlora_cli.foundation.files import folder_atomically, write_text


def write(folder: Path, weights: AdapterWeights, sizes: Sizes) -> list[str]:
    """Write the folder and return what it can't say."""
    family = FAMILIES[weights.family or ""]
    tensors = {
        OWN_PREFIX + key.removeprefix(f"{family.denoiser}."): tensor
        for key, tensor in peft_tensors(weights).items()
    }
    rank = weights.rank * weights.copies
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": weights.info.base_model,
        "revision": weights.info.base_revision,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted(weights.layers),
        "bias": "none",
        "inference_mode": True,
    }
    with folder_atomically(folder) as unfinished:
        save_file(tensors, unfinished / "adapter_model.safetensors", metadata={"format": "pt"})
        write_text(unfinished / "adapter_config.json", json.dumps(settings, indent=2) + "\n")
    return [f"load it with PeftModel.from_pretrained(pipeline.{family.denoiser}, the folder)",
            *mask_lost(weights)]  # fmt: skip


PEFT_FOLDER = Format("peft", None, write, folder=True)
