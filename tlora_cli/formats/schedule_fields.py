"""The rank schedule in the header of our adapter file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlora_cli.formulas.noise_axis import AXIS, NoiseAxis
from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.untrusted_json import parse_json

PLAIN_VERSION, AXIS_VERSION, TRAINED_VERSION = "1", "2", "3"
"""Versions of the file's format: without and with an axis of noise levels, and of a checkpoint that
holds what is trained in place of pairs (`checkpoint_file.py`). A program from before refuses those
that it doesn't know, instead of reading ranks by timestep or a checkpoint as a whole file."""


def format_version(schedule: RankSchedule | None) -> str:
    """Return the oldest version of the format that can say the schedule."""
    return PLAIN_VERSION if schedule is None or schedule.axis is None else AXIS_VERSION


def schedule_fields(schedule: RankSchedule) -> dict[str, Any]:
    """Return the fields that say a schedule; an axis has all that is needed without the base."""
    fields: dict[str, Any] = {
        "rank": schedule.rank,
        "min_rank": schedule.min_rank,
        "schedule": schedule.kind,
        "alpha": schedule.alpha,
        "num_train_timesteps": schedule.num_train_timesteps,
        "points": schedule.points,
        "schedule_seed": schedule.seed,
    }
    if axis := schedule.axis:
        fields |= {
            "axis": AXIS,
            "axis_scale": axis.scale,
            "axis_shift": axis.shift,
            "axis_signal": axis.signal,
        }
    return fields


def read_schedule(header: Mapping[str, str]) -> RankSchedule:
    """Return the schedule that a header says.

    Raises:
        KeyError, ValueError, TypeError, OverflowError: if the header is damaged.
    """
    return RankSchedule(
        rank=int(header["tlora.rank"]),
        min_rank=int(header["tlora.min_rank"]),
        alpha=float(header["tlora.alpha"]),
        kind=header["tlora.schedule"],
        num_train_timesteps=int(header["tlora.num_train_timesteps"]),
        points=parse_json(header.get("tlora.points", "null")),
        seed=int(header["tlora.schedule_seed"]),
        axis=_read_axis(header),
    )


def _read_axis(header: Mapping[str, str]) -> NoiseAxis | None:
    version = header["tlora.format_version"]
    if version == PLAIN_VERSION or (version == TRAINED_VERSION and "tlora.axis" not in header):
        return None
    if header["tlora.axis"] != AXIS:
        raise ValueError(f"axis is {header['tlora.axis']}")
    return NoiseAxis(
        float(header["tlora.axis_scale"]),
        float(header["tlora.axis_shift"]),
        parse_json(header["tlora.axis_signal"]),
    )
