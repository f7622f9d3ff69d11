"""The values of a recipe that are files or folders, with variables filled in.

What a run keeps is the whole path, so it is resumed from any shell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tlora_cli.foundation.variables import filled_path
from tlora_cli.recipe.mistakes import KeyPath

KEYS = {"images", "masks", "mask_model", "places", "config", "base"}
"""Keys of such values, wherever they stand: grids have some of them in other sections."""
IN_SECTIONS = {("base", "model"), ("output", "dir"), ("evaluate", "prompts")}
"""Others, with the section that they belong to."""
AT_TOP = {("recipe",), ("output",)}
"""Others of grids, at the top of the file."""


def fill_places(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Fill variables in, in place; yield the path of what can't be filled in, and why.

    Args:
        value: a mapping or a list of plain data.
        path: of it.
    """
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        here = (*path, key)
        if isinstance(inner, dict | list):
            yield from fill_places(inner, here)
        elif isinstance(inner, str) and _is_place(here):
            try:
                value[key] = filled_path(inner)
            except ValueError as error:
                yield here, str(error)


def _is_place(path: KeyPath) -> bool:
    names = [part for one in path if isinstance(one, str) for part in one.split(".")]
    if not names:
        return False
    return names[-1] in KEYS or tuple(names[-2:]) in IN_SECTIONS or tuple(names) in AT_TOP
