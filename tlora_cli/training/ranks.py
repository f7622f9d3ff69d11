"""The rank schedule of a recipe."""

from __future__ import annotations

from tlora_cli.adapters import METHODS
from tlora_cli.recipe import Recipe
from tlora_cli.schedules import RankSchedule


def rank_schedule(recipe: Recipe) -> RankSchedule | None:
    """Return the schedule; None for methods that none masks."""
    config = recipe.adapter
    if not METHODS[config.method].masked:
        return None
    return RankSchedule(
        rank=config.rank,
        min_rank=config.min_rank,
        alpha=config.schedule.alpha,
        kind=config.schedule.kind,
        points=config.schedule.points,
        seed=recipe.train.seed,
    )
