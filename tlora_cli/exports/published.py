"""A checkpoint in the layout of the published T-LoRA code (ControlGenAI/T-LoRA), for SDXL.

The ortho family is stored as two products whose difference is the update, the others as a pair. The
rank schedule stands in `logs/hparams.yml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file
from torch import Tensor

from tlora_cli.formats import AdapterWeights
from tlora_cli.formats.products import NOW, START, has_principal_start, stored, two_products
from tlora_cli.formats.published import LAYERS
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import folder_atomically

_PROCESSOR = {layer: projection for projection, layer in LAYERS.items()}
_SDXL = tuple(layer for layer in _PROCESSOR if not layer.startswith("add_"))


def write(folder: Path, weights: AdapterWeights, sizes: Mapping[str, int]) -> list[str]:
    """Write the folder of a run with one checkpoint, and return what it can't say.

    Raises:
        UserError: for FLUX, for other layers than the published code adapts, and for schedules that
            it doesn't know.
    """
    _check(weights, sizes)
    tensors: dict[str, Tensor] = {}
    for name, pair in weights.layers.items():
        attention, projection = _split(name)
        stem = f"{attention}.processor.{_PROCESSOR[projection]}_lora"
        now, start = two_products(weights, pair)
        if weights.copies == 1:
            parts = {"down.weight": now.down.clone(), "up.weight": now.up.clone()}
        else:
            down, scale, up = START
            parts = stored(now, NOW, ".weight") | stored(start, (down, scale, up), ".weight")
        tensors |= {f"{stem}.{part}": tensor.contiguous() for part, tensor in parts.items()}
    steps = weights.info.train_steps
    checkpoint = f"checkpoint-{'converted' if steps is None else steps}"
    with folder_atomically(folder) as unfinished:
        for part in (checkpoint, "logs"):
            (unfinished / part).mkdir()
        save_file(tensors, unfinished / checkpoint / "pytorch_lora_weights.safetensors")
        settings = yaml.safe_dump(_hparams(weights), sort_keys=False, allow_unicode=True)
        (unfinished / "logs" / "hparams.yml").write_text(settings, encoding="utf-8")
    notes = [f"the weights are in {checkpoint}, the rank schedule in logs/hparams.yml"]
    if weights.copies == 2 and not has_principal_start(weights):
        notes.append("its base_* tensors are the half of the update that is subtracted, no start")
    return notes


def _hparams(weights: AdapterWeights) -> dict[str, Any]:
    """Return the settings that the published code, and our reader, look for."""
    schedule, info = weights.schedule, weights.info
    assert schedule is not None
    init = info.init or ""
    return {
        "trainer_class": "sdxl_lora" if schedule.always_full else "sdxl_tlora",
        "trainer_type": "ortho_lora" if weights.copies == 2 else "lora",
        "lora_rank": weights.rank,
        "min_rank": schedule.min_rank,
        "alpha_rank_scale": schedule.alpha,
        "sig_type": init.removeprefix("random_") if init.startswith("random_") else None,
        "seed": info.seed,
        "placeholder_token": info.placeholder,
        "class_name": info.class_name,
        "pretrained_model_name_or_path": info.base_model,
        "revision": info.base_revision,
    }


def _check(weights: AdapterWeights, sizes: Mapping[str, int]) -> None:
    schedule = weights.schedule
    assert schedule is not None
    if weights.family != "sdxl":
        raise UserError(
            "published T-LoRA checkpoints for FLUX are pickles, which tlora only reads",
            do="use --to tlora, which says the rank schedule, too",
        )
    if not schedule.always_full and (schedule.kind, schedule.num_train_timesteps) != (
        "linear",
        1000,
    ):
        raise UserError(
            f"the published code knows the linear rank schedule over 1000 timesteps, not the "
            f"{schedule.kind} one over {schedule.num_train_timesteps}",
            where="adapter.schedule",
            do="use --to tlora, which keeps it",
        )
    wanted = {name for name in sizes if _split(name)[1] in _SDXL}
    wanted = {name for name in wanted if _split(name)[0].rsplit(".", 1)[-1] in ("attn1", "attn2")}
    other, lacking = weights.layers.keys() - wanted, wanted - weights.layers.keys()
    if other or lacking:
        raise UserError(
            "the published code adapts the queries, keys, values and outputs of every attention; "
            + (f"this adapter also has {min(other)}" if other else f"it lacks {min(lacking)}"),
            where="adapter.targets",
            do="use --to tlora or kohya",
        )


def _split(name: str) -> tuple[str, str]:
    """Return the attention and the layer in it."""
    for layer in _PROCESSOR:
        if name.endswith(f".{layer}"):
            return name.removesuffix(f".{layer}"), layer
    return name, ""
