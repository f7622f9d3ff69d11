"""Changes of a grid from the command line: other seeds, concepts, bases and settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tlora_cli.comparison.grid import GRID, Block, Grid
from tlora_cli.recipe.mistakes import KeyPath, Mistake
from tlora_cli.recipe.reading import Origin, apply_override
from tlora_cli.recipe.yaml_text import YAMLMistake, parse_yaml

AXES = tuple(Block.model_fields)
OF_ALL = ("concept", "seed")
"""Axes that every section gets; others are changed in those that have them."""
OF_GRID = ("output", "baseline", "evaluate", "workers", "threads")
"""Keys of the grid itself. What is neither this nor an axis is a key of the recipe."""
SET_BY_AXES = {
    "adapter.method": "method",
    "adapter.rank": "rank",
    "adapter.schedule": "schedule",
    "concept.class": "concept",
    "train.seed": "seed",
}
"""Recipe keys that nothing else may set where the grid has the axis."""


@dataclass(frozen=True)
class Changes:
    """The `--set` options of a comparison, by what they change.

    Attributes:
        axes: axis -> the option; its values are put in place of the grid's.
        grid: options of other keys of the grid.
        recipe: options of keys of the recipe.
    """

    axes: dict[str, str] = field(default_factory=dict)
    grid: list[str] = field(default_factory=list)
    recipe: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, options: Sequence[str]) -> Changes:
        """Sort options; of one key, the last counts."""
        changes = cls()
        for option in options:
            key = option.partition("=")[0].strip()
            if key in AXES:
                changes.axes[key] = option
            elif key.partition(".")[0] in OF_GRID and not key.startswith("output."):
                changes.grid.append(option)
            else:
                changes.recipe.append(option)
        return changes

    def put_into(self, data: dict[str, Any], origins: dict[KeyPath, Origin]) -> list[Mistake]:
        """Change a grid's data as it was written; return what is wrong with the options."""
        mistakes = []
        for option in self.grid:
            mistakes += apply_override(data, origins, option, GRID)
        for axis, option in self.axes.items():
            mistakes += _put_axis(data, origins, axis, option)
        return mistakes

    def overruled(self, grid: Grid) -> list[Mistake]:
        """Return the options that would change nothing, as an axis or a variant sets the same."""
        found = []
        for option in self.recipe:
            key = option.partition("=")[0].strip()
            if text := _overruled(key, grid):
                found.append(Mistake((key,), text, override=option))
        return found


def _overruled(key: str, grid: Grid) -> str:
    """Say what has a recipe key's value; empty if neither an axis nor a variant has."""
    for taken, axis in SET_BY_AXES.items():
        if _meet(key, taken) and any(getattr(block, axis) for block in grid.grid):
            return f"is set by the grid's axis {axis}; write {axis}=VALUES"
    used = {name for block in grid.grid for name in block.variant or grid.variants}
    having = [
        name
        for name, values in grid.variants.items()
        if name in used and any(_meet(key, other) for other in values)
    ]
    if having:
        return f"is set by the variants {', '.join(having)}; take others with variant=NAMES"
    return ""


def _meet(key: str, other: str) -> bool:
    """Whether dotted keys are the same, or one is within the other."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _put_axis(
    data: dict[str, Any], origins: dict[KeyPath, Origin], axis: str, option: str
) -> list[Mistake]:
    """Put an axis' values, `a,b` or a YAML list, into the sections of a grid."""
    text = option.partition("=")[2].strip()
    if "=" not in option or not text:
        return [Mistake((axis,), "write AXIS=VALUES, such as seed=7,8", override=option)]
    try:
        parsed = parse_yaml(text if text.startswith("[") else f"[{text}]")
    except YAMLMistake as error:
        return [Mistake((axis,), f"{error.text} (text may need quotes)", override=option)]
    if parsed.mistakes or parsed.doubts:
        wrong = [*parsed.mistakes, *parsed.doubts]
        return [Mistake((axis, *one.path), one.text, override=option) for one in wrong]
    written = data.get("grid")
    blocks: list[tuple[KeyPath, Any]] = (
        [(("grid", number), block) for number, block in enumerate(written)]
        if isinstance(written, list)
        else [(("grid",), written)]
    )
    sections = [(place, block) for place, block in blocks if isinstance(block, dict)]
    having = [one for one in sections if axis in one[1]]
    for place, block in sections if axis in OF_ALL or not having else having:
        block[axis] = list(parsed.data)
        path = (*place, axis)
        for below in [known for known in origins if known[: len(path)] == path]:
            del origins[below]
        origins[path] = Origin(override=option)
    return []
