"""The checkpoints that the published T-LoRA code writes (ControlGenAI/T-LoRA).

SDXL: `checkpoint-N/pytorch_lora_weights.safetensors`; FLUX: `checkpoint-N/lora.pt`. The tensors are
named after attention processors: `<attn>.processor.to_q_lora.down.weight`; the ortho family is two
products whose difference is the update. The schedule is in `logs/hparams.yml`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from tlora_cli.families import Family
from tlora_cli.families.flux import FLUX
from tlora_cli.families.sdxl import SDXL
from tlora_cli.formats.common import DAMAGED, method_name, scaled_pair
from tlora_cli.formats.products import ortho_pair
from tlora_cli.formats.published_export import write
from tlora_cli.formats.published_names import KEY, LAYERS, TRAINERS, USED_IN_SINGLE_BLOCKS
from tlora_cli.formats.spec import Format, Reader
from tlora_cli.formats.weights import AdapterFile, AdapterInfo, AdapterWeights, Pair
from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.errors import UserError
from tlora_cli.methods.tlora import TLORA
from tlora_cli.recipe.reading import read_text
from tlora_cli.recipe.yaml_text import YAMLMistake, parse_yaml


def matches(keys: set[str], header: Mapping[str, str]) -> bool:
    """Whether the tensors have the published names."""
    return any(KEY.fullmatch(key) for key in keys)


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
        match = KEY.fullmatch(key)
        if match is None:
            raise UserError(
                f"the T-LoRA checkpoint holds a tensor that is not known: {key}",
                where=str(file.path),
                do=DAMAGED,
            )
        attn, projection = match["attn"], match["projection"]
        if attn.startswith("single_") and projection not in USED_IN_SINGLE_BLOCKS:
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
        return bool(values[TLORA.name]) if family is FLUX else TRAINERS[values["trainer_class"]]


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
        return None if value in (None, "") else str(value)

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
        train_steps=int(step[1]) or None if step else None,
    )


PUBLISHED = Format("published", Reader(matches, origin, read), write, folder=True)
