"""The number of pictures that the evaluation of a cell draws."""

from __future__ import annotations

from tlora_cli.comparison.cells import Cell, Plan
from tlora_cli.evaluation.image_requests import Counts
from tlora_cli.evaluation.judging import judged_evaluation, requests_of
from tlora_cli.foundation.bundled import bundle_of_base


def pictures_of(cell: Cell, plan: Plan) -> int:
    """Return how many pictures are drawn of a cell, with the base alone, too."""
    own, recipe = plan.grid.evaluate, cell.recipe
    counts = Counts(own.count, own.base_count, own.free_count, own.seed)
    judged = None
    if plan.prompts is None:
        learned = recipe.model_dump(mode="json", by_alias=True, include={"concept"})
        judged = judged_evaluation(bundle_of_base(recipe.base.model), learned, counts)
    return len(requests_of(judged, plan.prompts, recipe.concept.class_name, counts))
