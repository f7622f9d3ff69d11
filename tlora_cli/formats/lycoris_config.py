"""The rank schedule of a LyCORIS T-LoRA, as SimpleTuner says it: `lycoris_config`.

SimpleTuner (bghira/SimpleTuner, helpers/training/trainer.py and save_hooks.py) puts the settings of
a training into the header of its file, and as `lycoris_config.json` beside it: `algo`, `linear_dim`
(the rank), `tlora_min_rank` (1 if it is left out) and `tlora_alpha` (1.0), for the linear schedule
over the scheduler's timesteps. In the header of a training's last file the numbers are missing, for
the trainer has taken them out by then; so a header without `linear_dim` says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.methods.tlora import TLORA
from tlora_cli.recipe.reading import read_text

FIELD, BESIDE = "lycoris_config", "lycoris_config.json"
ALGORITHM = TLORA.name  # LyCORIS has the same word for it
TIMESTEPS = 1000
"""Timesteps of the schedulers of the models that have such files."""
_MEND = "mend it, or remove it and pass --min-rank"


def read_schedule(header: Mapping[str, str], path: Path, rank: int) -> RankSchedule | None:
    """Return the schedule that the header says, or the file beside; None if neither does.

    Args:
        header: of the adapter file.
        path: of the adapter file.
        rank: of its layers.

    Raises:
        UserError: if the settings are damaged, or are those of another rank.
    """
    for text, where in _texts(header, path):
        settings = _settings(text, where)
        if settings.get("algo") != ALGORITHM or "linear_dim" not in settings:
            continue
        try:
            stated = int(settings["linear_dim"])
            least, alpha = settings.get("tlora_min_rank", 1), settings.get("tlora_alpha", 1.0)
            schedule = RankSchedule(rank, min(int(least), rank), float(alpha))
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{FIELD} makes no schedule: {error}", where, _MEND) from error
        if stated != rank:
            raise UserError(
                f"{FIELD} says rank {stated}, but the file has rank {rank}",
                where=where,
                do=f"use the {BESIDE} of the same training, or remove it and pass --min-rank",
            )
        return schedule
    return None


def schedule_field(schedule: RankSchedule) -> dict[str, str]:
    """Return the header field that says a schedule; none for one that these settings can't say."""
    if schedule.always_full:
        least, alpha = schedule.rank, 1.0
    elif (schedule.title, schedule.num_train_timesteps) == ("linear", TIMESTEPS):
        least, alpha = schedule.min_rank, schedule.alpha
    else:
        return {}
    settings = {
        "algo": ALGORITHM,
        "multiplier": 1.0,
        "linear_dim": schedule.rank,
        "linear_alpha": schedule.rank,
        "tlora_min_rank": least,
        "tlora_alpha": alpha,
    }
    return {FIELD: json.dumps(settings)}


def _texts(header: Mapping[str, str], path: Path) -> list[tuple[str, str]]:
    """Return the settings that there are as text, and where; the header's first."""
    found = [(header[FIELD], str(path))] if FIELD in header else []
    beside = path.absolute().with_name(BESIDE)
    if beside.is_file():
        found.append((read_text(beside, BESIDE), str(beside)))
    return found


def _settings(text: str, where: str) -> dict[str, Any]:
    try:
        settings = parse_json(text)
    except ValueError as error:
        raise UserError(f"{FIELD} can't be read: {error}", where, _MEND) from error
    if not isinstance(settings, dict):
        raise UserError(f"{FIELD} holds no settings", where, _MEND)
    return settings
