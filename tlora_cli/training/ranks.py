"""The rank schedule of a recipe."""

from __future__ import annotations

from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.methods import METHODS
from tlora_cli.recipe.sections import AdapterConfig


def rank_schedule(adapter: AdapterConfig, seed: int) -> RankSchedule | None:
    """Return the schedule; None for methods that none masks.

    Args:
        adapter: of the recipe.
        seed: of the run, for random schedules.
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
    )
