"""The number of pictures that the evaluation of a cell draws."""

from __future__ import annotations

from tlora_cli.comparison.cells import Cell, Plan
from tlora_cli.evaluation.suites import CONCEPT_FREE, suite_for
from tlora_cli.foundation.bundled import bundle_of_base

CONTEXTS = 10
"""Prompts of the built-in world for each of `count`; each picture has one of its own."""


def pictures_of(cell: Cell, plan: Plan) -> int:
    """Return how many pictures are drawn of a cell, with the base alone, too."""
    settings = plan.grid.evaluate
    prompts = plan.prompts
    if prompts is None and bundle_of_base(cell.recipe.base.model) is None:
        prompts = suite_for(cell.recipe.concept.class_name).prompts
    asked = CONTEXTS if prompts is None else len(prompts)
    free = 2 * len(CONCEPT_FREE) * settings.free_count
    return settings.base_count + asked * settings.count + free
