"""Turn an adapter of any readable format into another.

No base model's weights are needed, but for a LyCORIS T-LoRA that leaves its start out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from shlex import quote

from torch import nn

from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.formats import FORMATS, AdapterInfo, AdapterWeights, OpenAdapter, open_adapter
from tlora_cli.formats.common import method_name
from tlora_cli.formats.slices import wider
from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.errors import UserError
from tlora_cli.injection.load import check_fit, choose_schedule, matrix_layers, rows_of
from tlora_cli.sampling.base_model import family_for


def convert_file(
    source: Path,
    output: Path,
    family: str | None,
    base: str | None,
    min_rank: int | None,
    alpha: float | None,
    given: Mapping[str, str | None],
    to: str,
    slices: int | None = None,
) -> tuple[str, list[str]]:
    """Read `source`, check that it fits its model, and write `output`.

    Args:
        source: the adapter, or its folder.
        output: the new file.
        family: if the layers don't tell it.
        base: a diffusers folder for layers and shapes; else the adapter's own if it is a folder,
            else the standard model's are taken.
        min_rank: of the schedule, in place of what the file says.
        alpha: exponent of the schedule, likewise.
        given: fields of `AdapterInfo` in place of what the file says; None leaves them.
        to: a name of `FORMATS`.
        slices: of ranks that switch on together, at most, for formats of slices; None: as many as
            the schedule has.

    Returns:
        What was written, in a few words, and what to know about it, in sentences.

    Raises:
        UserError: if the file can't be read, doesn't fit, or says no schedule and none is given.
    """
    where, target = str(source), FORMATS[to]
    if target.write is None:
        raise UserError(f"tlora reads {to} and does not write it", do="choose another --to")
    opened = open_adapter(source)
    stated, about = _stated_family(opened, family, base), opened.origin[1]
    name = stated or family
    if name is None:
        raise UserError("the file does not tell its model family", where, "pass --family")
    if family not in (None, name):
        raise UserError(f"the adapter is for {name}, not {family}", where, "leave --family out")
    model = _denoiser(name, base, about, opened.needs_weights)
    known = matrix_layers(model)
    weights = opened.read(known)
    if not weights.low_rank and target.low_rank_only:
        if not weights.parts:
            raise UserError(
                f"{weights.info.method} has learned a word and nothing else; {to} has no place for "
                "it",
                where,
                "write the word itself: --to embedding",
            )
        raise UserError(
            f"{weights.info.method} changes the weights themselves; {to} knows low-rank updates",
            where,
            "use it with tlora, or put it into the base's weights: tlora merge",
        )
    for layer, pair in weights.layers.items():
        check_fit(known, layer, pair, where)
    if not weights.low_rank and (min_rank, alpha) != (None, None):
        raise UserError(
            f"{weights.info.method} has no ranks", where, "leave --min-rank and --alpha out"
        )
    schedule = choose_schedule(weights, min_rank, where, alpha)
    said: list[str] = []
    if slices is not None and schedule is not None:
        schedule, off = wider(schedule, slices)
        said.append(f"at most {off} of {schedule.rank} ranks are on too early or too late")
    new = dataclasses.replace(
        weights, family=name, schedule=schedule, info=_info(weights, schedule, given)
    )
    notes = [*target.write(output, new, rows_of(known)), *said]
    if new.words and not target.words:
        notes.append(
            f"the learned word {new.info.placeholder or ''} is not in it, and without it prompts "
            f"draw something else: tlora convert {quote(where)} --to embedding writes it"
        )
    count = f"{len(new.layers or new.parts)} layers" if new.low_rank or new.parts else "a word"
    if schedule is None:
        return f"{name} {new.info.method}, {count}", notes
    rank = f"rank {schedule.rank}"
    if not schedule.always_full:
        rank += f", least rank {schedule.min_rank}"
    return f"{name} {new.info.method}, {rank}, {count}", notes


def _stated_family(opened: OpenAdapter, family: str | None, base: str | None) -> str | None:
    """Return the family that the file says; where its names fit several, what is given counts."""
    if len(opened.families) > 1:
        if family in opened.families:
            return family
        folder = Base(base).path if base is not None else None
        if folder is not None and (folder / "model_index.json").is_file():
            return family_for(opened, Base(str(folder)))
    return opened.origin[0]


def _denoiser(family: str, base: str | None, info: AdapterInfo, whole: bool) -> nn.Module:
    """Return the layers of the base's denoiser; with their weights, as they are stored, if `whole`.

    The base is the given one, else the adapter's own; only a local folder's configuration is read.
    """
    if whole and base is not None:
        kind = FAMILIES[family]
        pipeline = load_pipeline(kind, Base(base), parts=("denoiser",))
        model: nn.Module = getattr(pipeline, kind.denoiser)
        return model
    known = base or info.base_model
    path = None if known is None else Base(known).path
    local = path is not None and path.is_dir()
    return meta_denoiser(family, str(path) if local else info.base_config)


def _info(
    weights: AdapterWeights, schedule: RankSchedule | None, given: Mapping[str, str | None]
) -> AdapterInfo:
    changes = {key: value for key, value in given.items() if value is not None}
    if schedule is not None and (schedule is not weights.schedule or weights.info.method is None):
        changes["method"] = method_name(weights.copies, not schedule.always_full)
    return dataclasses.replace(weights.info, **changes)  # type: ignore[arg-type]
