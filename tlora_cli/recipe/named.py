"""Recipes by name: what a recipe file leaves out, it has from one of these.

`paper` is what was published (T-LoRA, section 5). `photo` is the program's own, for a single
photograph: the subject is found, cut out and put on other places, and phrases keep open what no
picture shows. On the built-in bases it also has the reach and the kind and length of training that
were chosen there; on others it takes rank, rate and steps as published.
"""

from __future__ import annotations

from typing import Any

from tlora_cli.foundation.bundled import bundle_of_base
from tlora_cli.methods import METHODS
from tlora_cli.photos.finding import AUTO
from tlora_cli.recipe.defaults import merged, published_settings

PAPER, PHOTO = "paper", "photo"
NAMED = {
    PAPER: "as published",
    PHOTO: "for one photograph: masks: auto, scenes, phrases, captions beside pictures",
}
"""Name -> what it is."""

_PHOTO: dict[str, Any] = {
    "concept": {"masks": AUTO, "scenes": {"loss": "whole"}, "phrases": "auto", "captions": True}
}


def recipe_settings(
    name: object, family: str, method: str, base: str | None = None
) -> dict[str, Any]:
    """Return the settings that lie under the user's own.

    Args:
        name: of the recipe; what is no name is told when the recipe is checked.
        family: of the base.
        method: of the adapter.
        base: name of the base model; one of a bundle has settings of its own.
    """
    published = published_settings(family, method, base)
    if name != PHOTO:
        return published
    found = merged(_PHOTO, published)
    known = METHODS.get(method)
    if base and (bundle := bundle_of_base(base)) and known and known.low_rank:
        found = merged(found, bundle.photo(base, method))
    return found
