"""The rank schedule of a recipe."""

from __future__ import annotations

from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.methods import METHODS
from tlora_cli.recipe.models import Recipe


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
