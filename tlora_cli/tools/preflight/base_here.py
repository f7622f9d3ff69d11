"""Is a base on this machine; the Hub isn't asked."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from tlora_cli.families import FAMILIES
from tlora_cli.recipe.models import Recipe
from tlora_cli.tools.preflight.base_parts import left_out_in, needed_parts
from tlora_cli.training.from_recipe import base_of


def is_here(recipe: Recipe) -> bool:
    """Say whether all of the recipe's base is on this machine.

    Raises:
        UserError: if it is a bundled model whose files are damaged.
    """
    base, family = base_of(recipe), FAMILIES[recipe.family]
    if base.path is not None:
        return True
    cached = try_to_load_from_cache(base.model, "model_index.json", revision=base.revision)
    if not isinstance(cached, str):
        return False
    folder = Path(cached).parent
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    parts = needed_parts(family, names, base.variant, left_out_in(family, folder))
    return not any(part.lacking for part in parts)
