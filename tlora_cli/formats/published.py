"""The checkpoints that the published T-LoRA code writes (ControlGenAI/T-LoRA).

SDXL: `checkpoint-N/pytorch_lora_weights.safetensors`; FLUX: `checkpoint-N/lora.pt`, only read. The
tensors are named after attention processors: `<attn>.processor.to_q_lora.down.weight`; the ortho
family is two products whose difference is the update. The schedule is in `logs/hparams.yml`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file
from torch import Tensor

from tlora_cli.families import Family
from tlora_cli.families.flux import FLUX
from tlora_cli.families.sdxl import SDXL
from tlora_cli.formats.common import DAMAGED, method_name, scaled_pair
from tlora_cli.formats.products import (
    NOW,
    START,
    has_principal_start,
    ortho_pair,
    stored,
    two_products,
)
from tlora_cli.formats.spec import Format, Reader, Sizes
from tlora_cli.formats.weights import AdapterFile, AdapterInfo, AdapterWeights, Pair
from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import folder_atomically
from tlora_cli.methods.tlora import TLORA
from tlora_cli.recipe.reading import read_text
from tlora_cli.recipe.yaml_text import YAMLMistake, parse_yaml

_KEY = re.compile(
    r"(?P<attn>(?:down_blocks|up_blocks|mid_block|transformer_blocks|single_transformer_blocks)\..+)"
    r"\.processor\.(?P<projection>to_(?:q|k|v|out|q_proj|k_proj|v_proj))_lora"
    r"\.(?P<part>down|up|q_layer|p_layer|lambda_layer|base_q|base_p|base_lambda)(?:\.weight)?"
)

LAYERS = {
    "to_q": "to_q",
    "to_k": "to_k",
    "to_v": "to_v",
    "to_out": "to_out.0",
    "to_q_proj": "add_q_proj",
    "to_k_proj": "add_k_proj",
    "to_v_proj": "add_v_proj",
}
"""Projection in the processor -> layer of the attention module."""

_PROCESSOR = {layer: projection for projection, layer in LAYERS.items()}
_ADAPTED = tuple(layer for layer in _PROCESSOR if not layer.startswith("add_"))
"""Layers of each attention that the SDXL checkpoints have."""

_USED_IN_SINGLE_BLOCKS = ("to_q", "to_k", "to_v")
"""FLUX's processors hold all seven everywhere; a single block calls only these."""

_SCHEDULE = ("linear", 1000)
"""Title and timesteps of the one rank schedule of the published code."""
_TRAINERS = {"sdxl_tlora": True, "sdxl_lora": False}
"""Published SDXL trainer -> whether it masks."""


def matches(keys: set[str], header: Mapping[str, str]) -> bool:
    """Whether the tensors have the published names."""
    return any(_KEY.fullmatch(key) for key in keys)


def origin(
    keys: Collection[str], header: Mapping[str, str], path: Path
) -> tuple[str | None, AdapterInfo]:
    """Return the family, and what hparams.yml says of the training if it is there.

    Raises:
        UserError: if hparams.yml is damaged.
    """
    family, ortho = _family(keys), _is_ortho(keys)
    hparams = _find_hparams(path)
    if hparams is None:  # without a schedule it is read only as a masked one, with min_rank
        return family.name, AdapterInfo(method=method_name(2 if ortho else 1, True))
    where, values = hparams
    masked = _is_masked(values, family, where)
    return family.name, _info(values, ortho, masked, path)


def read(file: AdapterFile) -> AdapterWeights:
    """Return the adapter; its schedule is None unless hparams.yml is found.

    Raises:
        UserError: if tensors are missing or hparams.yml contradicts them.
    """
    _, info = origin(file.tensors, file.header, file.path)
    family = _family(file.tensors)
    ortho = _is_ortho(file.tensors)
    layers: dict[str, Pair] = {}
    for name, found in _parts(file).items():
        pair = ortho_pair(name, found, file.path) if ortho else None
        layers[name] = pair or scaled_pair(name, found, 1.0, file.path)
    if not layers:
        raise UserError("the checkpoint holds no layer that is used", str(file.path), DAMAGED)
    copies = 2 if ortho else 1
    ranks = {down.shape[0] // copies for down, _ in layers.values()}
    hparams = _find_hparams(file.path)
    schedule = _schedule(hparams[1], family, max(ranks), hparams[0]) if hparams else None
    if len(ranks) > 1 and (schedule is None or schedule.kind != "constant"):
        raise UserError("a masked T-LoRA needs one rank for all layers", str(file.path), DAMAGED)
    return AdapterWeights(layers, copies, schedule, family.name, info)


def _family(keys: Collection[str]) -> Family:
    return FLUX if FLUX.knows(keys) else SDXL


def _is_ortho(keys: Collection[str]) -> bool:
    return any(key.endswith((".q_layer.weight", ".base_q.weight")) for key in keys)


def _parts(file: AdapterFile) -> dict[str, dict[str, Tensor]]:
    """Return layer name -> part -> tensor, without what FLUX's single blocks never use."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key in sorted(file.tensors):
        match = _KEY.fullmatch(key)
        if match is None:
            raise UserError(
                f"the T-LoRA checkpoint holds a tensor that is not known: {key}",
                where=str(file.path),
                do=DAMAGED,
            )
        attn, projection = match["attn"], match["projection"]
        if attn.startswith("single_") and projection not in _USED_IN_SINGLE_BLOCKS:
            continue
        parts[f"{attn}.{LAYERS[projection]}"][match["part"]] = file.tensors[key]
    return parts


def _find_hparams(path: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return hparams.yml and its contents: where it was written, or beside the file."""
    folder = path.absolute().parent
    places = (folder.parent / "logs", folder / "logs", folder)
    file = next((p / "hparams.yml" for p in places if (p / "hparams.yml").is_file()), None)
    if file is None:
        return None
    try:
        parsed = parse_yaml(read_text(file, "hparams.yml"))
        if parsed.mistakes:
            raise YAMLMistake(parsed.mistakes[0].line, parsed.mistakes[0].text)
        values = parsed.data
    except YAMLMistake as error:
        raise UserError(
            f"hparams.yml can't be read: {error.text}",
            str(file) if error.line is None else f"{file}, line {error.line}",
            "mend it, or remove it and pass min_rank",
        ) from error
    if not isinstance(values, dict):
        raise UserError(
            "hparams.yml holds no settings", str(file), "mend it, or remove it and pass min_rank"
        )
    return file, values


def _is_masked(values: dict[str, Any], family: Family, where: Path) -> bool:
    with _explained(family, where):
        return bool(values[TLORA.name]) if family is FLUX else _TRAINERS[values["trainer_class"]]


def _schedule(values: dict[str, Any], family: Family, rank: int, where: Path) -> RankSchedule:
    """Return the schedule that the published trainers and samplers take from these settings."""
    if not _is_masked(values, family, where):
        # The rank of a narrow layer is cut, so it may lie below the stated one.
        return RankSchedule(rank, rank, kind="constant")
    with _explained(family, where):
        stated = int(values["rank" if family is FLUX else "lora_rank"])
        min_rank = int(values.get("min_rank", 1))
        schedule = RankSchedule(rank, min_rank, float(values.get("alpha_rank_scale", 1)))
    if stated != rank:
        raise UserError(
            f"hparams.yml says rank {stated}, but the checkpoint has rank {rank}",
            where=str(where),
            do="use the hparams.yml of the same run",
        )
    return schedule


@contextmanager
def _explained(family: Family, where: Path) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise UserError(
            f"hparams.yml does not say {error} as the published {family.name} code does",
            where=str(where),
            do="use the hparams.yml that training wrote",
        ) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"hparams.yml makes no schedule: {error}", str(where), "mend it, or remove it"
        ) from error


def _info(values: dict[str, Any], ortho: bool, masked: bool, path: Path) -> AdapterInfo:
    def text(key: str) -> str | None:
        value = values.get(key)
        return None if value is None else str(value)

    seed, step = values.get("seed"), re.fullmatch(r"checkpoint-(\d+)", path.absolute().parent.name)
    start = text("sig_type")
    return AdapterInfo(
        method=method_name(2 if ortho else 1, masked),
        init=f"random_{start}" if ortho and start else None,
        seed=seed if isinstance(seed, int) else None,
        base_model=text("pretrained_model_name_or_path"),
        base_revision=text("revision"),
        placeholder=text("placeholder_token"),
        class_name=text("class_name"),
        train_steps=int(step[1]) if step else None,
    )


# --- writing -----------------------------------------------------------------------------------


def write(folder: Path, weights: AdapterWeights, sizes: Sizes) -> list[str]:
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
        "trainer_class": next(k for k, v in _TRAINERS.items() if v != schedule.always_full),
        "trainer_type": method_name(weights.copies, masked=False),
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


def _check(weights: AdapterWeights, sizes: Sizes) -> None:
    schedule = weights.schedule
    assert schedule is not None
    if weights.family != SDXL.name:
        there_are = {FLUX.name: "for FLUX are pickles, which tlora only reads"}
        raise UserError(
            "published T-LoRA checkpoints "
            + there_are.get(weights.family or "", f"for {weights.family} do not exist"),
            do="use --to tlora, which says the rank schedule, too",
        )
    if not schedule.always_full and (schedule.title, schedule.num_train_timesteps) != _SCHEDULE:
        raise UserError(
            "the published code knows the linear rank schedule over 1000 timesteps, not the "
            f"{schedule.title} one over {schedule.num_train_timesteps}",
            where="adapter.schedule",
            do="use --to tlora, which keeps it",
        )
    wanted = {name for name in sizes if _split(name)[1] in _ADAPTED}
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


PUBLISHED = Format("published", Reader(matches, origin, read), write, folder=True)
