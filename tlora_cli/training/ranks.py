"""The rank schedule of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlora_cli.families import Family
from tlora_cli.formulas.noise_axis import AXIS
from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.methods import METHODS
from tlora_cli.recipe.adapter_sections import AdapterConfig


def rank_schedule(
    adapter: AdapterConfig, seed: int, family: Family, scheduler_config: Mapping[str, Any]
) -> RankSchedule | None:
    """Return the schedule; None for methods that none masks.

    Args:
        adapter: of the recipe.
        seed: of the run, for random schedules.
        family: of the base.
        scheduler_config: of the base, for its noise levels.
    """
    if not METHODS[adapter.method].masked:
        return None
    return RankSchedule(
        rank=adapter.rank,
        min_rank=adapter.min_rank,
        alpha=adapter.schedule.alpha,
        kind=adapter.schedule.kind,
        points=adapter.schedule.points,
        seed=seed,
        axis=family.noise_axis(scheduler_config) if adapter.schedule.axis == AXIS else None,
    )
