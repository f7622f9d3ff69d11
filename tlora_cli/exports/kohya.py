"""A plain LoRA in the names of kohya's sd-scripts, which ComfyUI and A1111 read.

SDXL has diffusers' names with underscores. FLUX has the original model's, where queries, keys and
values are one layer: their factors are fused as a block-diagonal of three times the rank, which is
the same update. alpha is the rank, so every reader's scale is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tlora_cli.exports.headers import mask_lost, model_spec
from tlora_cli.formats import AdapterWeights
from tlora_cli.formats.kohya_names import known_names
from tlora_cli.formats.weights import Pair
from tlora_cli.foundation.files import write_atomically

PREFIX = "lora_unet_"


def write(path: Path, weights: AdapterWeights, sizes: Mapping[str, int]) -> list[str]:
    """Write the file and return what it can't say.

    Args:
        path: the .safetensors file.
        weights: with family and schedule.
        sizes: outputs of the denoiser's linear layers; fused layers need those of their parts.
    """
    tensors = kohya_tensors(weights.layers, weights.family or "", sizes)
    widths = {len(down) for down, _ in weights.layers.values()}
    header = {
        "format": "pt",
        "ss_network_module": "networks.lora_flux" if weights.family == "flux" else "networks.lora",
        "ss_network_dim": str(max(widths)),
        "ss_network_alpha": str(max(widths)),
        "ss_base_model_version": "flux1" if weights.family == "flux" else "sdxl_base_v1-0",
        **model_spec(weights),
    }
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))
    return mask_lost(weights)


def kohya_tensors(
    layers: Mapping[str, Pair], family: str, sizes: Mapping[str, int]
) -> dict[str, Tensor]:
    """Return name -> tensor, in kohya's names.

    Args:
        layers: name -> factors.
        family: of the model.
        sizes: outputs of the denoiser's linear layers.
    """
    tensors: dict[str, Tensor] = {}
    for name, members in _grouped(layers, family, sizes).items():
        down, up = _fused([(layers.get(one), sizes[one]) for one in members])
        stem = PREFIX + name
        tensors[f"{stem}.lora_down.weight"] = down.contiguous()
        tensors[f"{stem}.lora_up.weight"] = up.contiguous()
        tensors[f"{stem}.alpha"] = torch.tensor(float(len(down)))
    return tensors


def _grouped(
    layers: Mapping[str, Pair], family: str, sizes: Mapping[str, int]
) -> dict[str, tuple[str, ...]]:
    """Return kohya's name -> the layers it drives, in the order of their rows."""
    if family != "flux":
        return {name.replace(".", "_"): (name,) for name in layers}
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
