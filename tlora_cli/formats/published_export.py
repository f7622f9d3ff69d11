"""Write a run's folder as the published T-LoRA code leaves it, so that its inference opens it.

`inference.py` (SDXL) and `flux/run_inference.py` read `logs/hparams.yml`, and from there the
checkpoint in `output_dir`, the base, and the words that a prompt's `{0}` stands for. SDXL's
processors hold plain or ortho factors, FLUX's plain ones alone, and those of its single blocks hold
four more pairs that are never used: they are zero here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from tlora_cli.families import FAMILIES
from tlora_cli.families.flux import FLUX
from tlora_cli.families.loading import Base
from tlora_cli.families.sdxl import SDXL
from tlora_cli.formats.common import method_name
from tlora_cli.formats.products import (
    NOW,
    START,
    Product,
    has_principal_start,
    stored,
    two_products,
)
from tlora_cli.formats.published_names import (
    FLUX_FILE,
    LAYERS,
    SDXL_FILE,
    TRAINERS,
    USED_IN_SINGLE_BLOCKS,
)
from tlora_cli.formats.spec import Sizes
from tlora_cli.formats.tlora_file import widened
from tlora_cli.formats.weights import AdapterWeights
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import folder_atomically
from tlora_cli.methods.tlora import TLORA

_SCHEDULE = ("linear", 1000)
"""Title and timesteps of the one rank schedule of the published code."""
_PROCESSOR = {layer: projection for projection, layer in LAYERS.items()}
_OURS = "use --to tlora, which says the rank schedule, too"


class Layout(NamedTuple):
    """The published code of one family.

    Attributes:
        adapts: name of a layer -> whether the code adapts it.
        all_adapted: the same, in words.
        settings: weights -> what `hparams.yml` says of rank and schedule.
        tensors: weights, sizes -> the checkpoint's tensors.
        save: tensors, file.
        file: name of the checkpoint's file.
    """

    adapts: Callable[[str], bool]
    all_adapted: str
    settings: Callable[[AdapterWeights], dict[str, Any]]
    tensors: Callable[[AdapterWeights, Sizes], dict[str, Tensor]]
    save: Callable[[dict[str, Tensor], Path], None]
    file: str


def write(folder: Path, weights: AdapterWeights, sizes: Sizes) -> list[str]:
    """Write the folder of a run with one checkpoint, and return what to know about it.

    Raises:
        UserError: for other families and layers than the published code adapts, and for schedules
            and ranks that it doesn't know.
    """
    layout = _LAYOUTS.get(weights.family or "")
    if layout is None:
        raise UserError(f"published T-LoRA checkpoints for {weights.family} do not exist", do=_OURS)
    _check(weights, sizes, layout)
    tensors = layout.tensors(weights, sizes)
    base, notes = _base(weights)
    step = weights.info.train_steps or 0  # a number, for the FLUX code takes no other
    settings = {
        **layout.settings(weights),
        "output_dir": str(folder.absolute()),
        "pretrained_model_name_or_path": base,
        "revision": weights.info.base_revision if weights.info.base_model else None,
        "seed": weights.info.seed,
        "placeholder_token": weights.info.placeholder or "",
        "class_name": weights.info.class_name or "",
    }
    with folder_atomically(folder) as unfinished:
        for part in (f"checkpoint-{step}", "logs"):
            (unfinished / part).mkdir()
        layout.save(tensors, unfinished / f"checkpoint-{step}" / layout.file)
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        (unfinished / "logs" / "hparams.yml").write_text(text, encoding="utf-8")
    first = [
        f"the weights are in checkpoint-{step}, the rank schedule in logs/hparams.yml, which names "
        "this folder as output_dir: change it there if you move the folder"
    ]
    if not weights.info.concept:
        notes.append(
            "the file does not say its words, so {0} in a prompt stands for nothing: give "
            "--placeholder and --class"
        )
    if any(".base_" in key for key in tensors) and not has_principal_start(weights):
        notes.append("its base_* tensors are the half of the update that is subtracted, no start")
    return first + notes


def _base(weights: AdapterWeights) -> tuple[str, list[str]]:
    """Return the base as `from_pretrained` takes it, and what to know about it."""
    family, stated = FAMILIES[weights.family or ""], weights.info.base_model
    if stated is None:
        return family.standard_base, [
            f"the file does not say its base: {family.standard_base} is written; give --base if it "
            "was another"
        ]
    base = Base(stated)
    if base.is_file:
        return str(base.absolute().model), [
            "the base is one file, which the published code can't load: give --base with its "
            "diffusers folder"
        ]
    return str(base.path.resolve()) if base.path else stated, []


# --- SDXL --------------------------------------------------------------------------------------


def _sdxl_adapts(name: str) -> bool:
    attention, layer = _split(name)
    of_sdxl = layer in _PROCESSOR and not layer.startswith("add_")
    return of_sdxl and attention.rsplit(".", 1)[-1] in ("attn1", "attn2")


def _sdxl_settings(weights: AdapterWeights) -> dict[str, Any]:
    schedule, init = weights.schedule, weights.info.init or ""
    assert schedule is not None
    return {
        "trainer_class": next(k for k, v in TRAINERS.items() if v != schedule.always_full),
        "trainer_type": method_name(weights.copies, masked=False),
        "lora_rank": weights.rank,
        "min_rank": schedule.min_rank,
        "alpha_rank_scale": schedule.alpha,
        "sig_type": init.removeprefix("random_") if init.startswith("random_") else None,
    }


def _sdxl_tensors(weights: AdapterWeights, sizes: Sizes) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, pair in weights.layers.items():
        now, start = two_products(weights, widened(pair, weights))
        if weights.copies == 1:
            tensors |= _plain(_stem(name), now)
        else:
            parts = stored(now, NOW, ".weight") | stored(start, START, ".weight")
            tensors |= {f"{_stem(name)}.{part}": tensor for part, tensor in parts.items()}
    return tensors


# --- FLUX --------------------------------------------------------------------------------------


def _flux_adapts(name: str) -> bool:
    attention, layer = _split(name)
    everywhere = _PROCESSOR.get(layer) in USED_IN_SINGLE_BLOCKS
    if attention.startswith("single_"):
        return everywhere
    return attention.startswith("transformer_blocks.") and layer in _PROCESSOR


def _flux_settings(weights: AdapterWeights) -> dict[str, Any]:
    schedule = weights.schedule
    assert schedule is not None
    rank = weights.rank * weights.copies
    return {
        TLORA.name: not schedule.always_full,
        "rank": rank,
        "min_rank": rank if schedule.always_full else schedule.min_rank,
    }


def _flux_tensors(weights: AdapterWeights, sizes: Sizes) -> dict[str, Tensor]:
    schedule = weights.schedule
    assert schedule is not None
    if not schedule.always_full and weights.copies != 1:
        raise UserError(
            "the published FLUX code masks plain factors alone; this adapter subtracts a start, "
            "which would need twice the ranks under the same mask",
            do="use --to tlora or lycoris, or train vanilla_tlora",
        )
    if not schedule.always_full and schedule.alpha != 1:
        raise UserError(
            "the published FLUX code has no exponent of the rank schedule, and alpha is "
            f"{schedule.alpha:g}",
            where="adapter.alpha",
            do=_OURS,
        )
    rank = weights.rank * weights.copies
    tensors: dict[str, Tensor] = {}
    for name, pair in weights.layers.items():
        down, up = (factor.float() for factor in widened(pair, weights))
        tensors |= _plain(_stem(name), Product(down, torch.ones(rank), up))
    for name in sizes:
        attention, layer = _split(name)
        if attention.startswith("single_") and layer == "to_q":
            width = sizes[name]
            unused = Product(torch.zeros(rank, width), torch.ones(rank), torch.zeros(width, rank))
            for projection in LAYERS.keys() - set(USED_IN_SINGLE_BLOCKS):
                tensors |= _plain(f"{attention}.processor.{projection}_lora", unused)
    return tensors


# --- both --------------------------------------------------------------------------------------


def _plain(stem: str, product: Product) -> dict[str, Tensor]:
    return {
        f"{stem}.down.weight": product.down.clone().contiguous(),
        f"{stem}.up.weight": product.up.clone().contiguous(),
    }


def _check(weights: AdapterWeights, sizes: Sizes, layout: Layout) -> None:
    schedule = weights.schedule
    assert schedule is not None
    if not schedule.always_full and (schedule.title, schedule.num_train_timesteps) != _SCHEDULE:
        raise UserError(
            "the published code knows the linear rank schedule over 1000 timesteps, not the "
            f"{schedule.title} one over {schedule.num_train_timesteps}",
            where="adapter.schedule",
            do="use --to tlora, which keeps it",
        )
    wanted = {name for name in sizes if layout.adapts(name)}
    other, lacking = weights.layers.keys() - wanted, wanted - weights.layers.keys()
    if other or lacking:
        raise UserError(
            f"the published code adapts {layout.all_adapted}; "
            + (f"this adapter also has {min(other)}" if other else f"it lacks {min(lacking)}"),
            where="adapter.targets",
            do="use --to tlora or kohya",
        )
    for name, (down, up) in weights.layers.items():
        if weights.rank > min(down.shape[1], len(up)):
            raise UserError(
                f"the published code gives a layer no more ranks than inputs and outputs; {name} "
                f"is {len(up)}x{down.shape[1]}, and the rank is {weights.rank}",
                where="adapter.rank",
                do="use --to tlora",
            )


def _split(name: str) -> tuple[str, str]:
    """Return the attention and the layer in it."""
    for layer in _PROCESSOR:
        if name.endswith(f".{layer}"):
            return name.removesuffix(f".{layer}"), layer
    return name, ""


def _stem(name: str) -> str:
    attention, layer = _split(name)
    return f"{attention}.processor.{_PROCESSOR[layer]}_lora"


_LAYOUTS = {
    SDXL.name: Layout(
        _sdxl_adapts, "the queries, keys, values and outputs of every attention",
        _sdxl_settings, _sdxl_tensors, save_file, SDXL_FILE,
    ),
    FLUX.name: Layout(
        _flux_adapts, "the queries, keys and values of every block, and outputs of the double ones",
        _flux_settings, _flux_tensors, torch.save, FLUX_FILE,
    ),
}  # fmt: skip
