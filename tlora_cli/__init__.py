"""T-LoRA: teach a diffusion model a new thing from one photograph without overfitting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlora_cli.foundation.lazy import public_names

if TYPE_CHECKING:
    from tlora_cli.families import FAMILIES
    from tlora_cli.formulas.schedules import SCHEDULES, RankSchedule
    from tlora_cli.foundation.errors import UserError
    from tlora_cli.injection.adapter import Adapter
    from tlora_cli.injection.attach import attach
    from tlora_cli.injection.load import load_adapter
    from tlora_cli.methods import METHODS
    from tlora_cli.recipe.models import Recipe
    from tlora_cli.recipe.reading import load_recipe
    from tlora_cli.sampling.sample import sample
    from tlora_cli.training.loop import Outcome, train

__all__ = [
    "FAMILIES",
    "METHODS",
    "SCHEDULES",
    "Adapter",
    "Outcome",
    "RankSchedule",
    "Recipe",
    "UserError",
    "attach",
    "load_adapter",
    "load_recipe",
    "sample",
    "train",
]

# Nothing is imported before it is used, so that `tlora` can check a recipe without torch.
__getattr__, __dir__ = public_names(
    __name__,
    {
        "FAMILIES": "families",
        "METHODS": "methods",
        "SCHEDULES": "formulas.schedules",
        "Adapter": "injection.adapter",
        "Outcome": "training.loop",
        "RankSchedule": "formulas.schedules",
        "Recipe": "recipe.models",
        "UserError": "foundation.errors",
        "attach": "injection.attach",
        "load_adapter": "injection.load",
        "load_recipe": "recipe.reading",
        "sample": "sampling.sample",
        "train": "training.loop",
    },
)
