"""The mask of a photo, found as a run finds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tlora_cli.foundation.bundled import is_base
from tlora_cli.foundation.devices import choose_device, has_accelerator, memory_explained
from tlora_cli.photos.finding import AUTO
from tlora_cli.photos.masks.files import MaskFiles
from tlora_cli.photos.masks.finder import FoundMask, MaskFinder
from tlora_cli.recipe.models import Recipe
from tlora_cli.studio.planning import start_of
from tlora_cli.tools.preflight.base_here import is_here
from tlora_cli.training.found_masks import find_masks

WHERE = "photo"


def find_mask(wishes: dict[str, Any], notify: Callable[[str], None]) -> dict[str, Any]:
    """Find the subject, and write its mask; a base helps that is here and quick.

    Args:
        wishes: a draft's fields, and `files`, its mask and overlay.
        notify: told what is loaded.

    Returns:
        What found the mask, its share of the photo, and what is doubtful about it.

    Raises:
        UserError: if the photo, the class or the base is not right.
    """
    photo, files = Path(wishes["photo"]), MaskFiles(*map(Path, wishes["files"]))
    recipe = start_of({**wishes, "masks": AUTO}).recipe
    if _helps(recipe):
        device = choose_device(recipe.train.device, recipe.train.precision)
        with memory_explained("close other programs that use the card"):
            [(_, _, found)] = find_masks(recipe, [(photo, files)], device, notify)
    else:
        found = MaskFinder().find(photo, WHERE)
        files.write(found)
    return notes_of(found)


def _helps(recipe: Recipe) -> bool:
    """Whether the base can be asked without a download, and without a wait of minutes."""
    return is_base(recipe.base.model) or (has_accelerator() and is_here(recipe))


def notes_of(found: FoundMask) -> dict[str, Any]:
    """Return what is said of a mask."""
    return {"by": found.by, "coverage": round(found.coverage, 4), "doubt": found.doubt}
