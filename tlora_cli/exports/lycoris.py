"""A T-LoRA for LyCORIS, with its start, in the names of its wrapper for diffusers' models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tlora_cli.exports.headers import model_spec
from tlora_cli.formats import AdapterWeights
from tlora_cli.formats.products import NOW, START, has_principal_start, stored, two_products
from tlora_cli.foundation.files import write_atomically

PREFIX = "lycoris_"


def write(path: Path, weights: AdapterWeights, sizes: Mapping[str, int]) -> list[str]:
    """Write the file and return what it can't say."""
    tensors: dict[str, Tensor] = {}
    for name, pair in weights.layers.items():
        now, start = two_products(weights, pair)
        parts = stored(now, NOW, ".weight") | stored(start, START)
        parts["alpha"] = torch.tensor(float(len(now.scale)))
        stem = PREFIX + name.replace(".", "_")
        tensors |= {f"{stem}.{part}": tensor for part, tensor in parts.items()}
    header = {"format": "pt", "ss_network_module": "lycoris.kohya", **model_spec(weights)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))
    return [_schedule(weights), *_start(weights)]


def _schedule(weights: AdapterWeights) -> str:
    schedule = weights.schedule
    assert schedule is not None
    if schedule.always_full:
        return "the file can't say that all ranks act at every timestep; LyCORIS needs no mask then"
    if schedule.kind != "linear":
        return f"the {schedule.kind} rank schedule is gone: LyCORIS knows the linear one"
    return (
        f"the file can't say its rank schedule: give LyCORIS rank {schedule.rank}, least rank "
        f"{schedule.min_rank}, alpha {schedule.alpha:g}, {schedule.num_train_timesteps} timesteps"
    )


def _start(weights: AdapterWeights) -> list[str]:
    if has_principal_start(weights):
        return []
    return [
        "its base_* tensors belong to the update: load them into the network (load_state_dict); "
        "what computes the start from the base's weights instead gets another update"
    ]
