"""Grid files: YAML -> the grid, and all that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlora_cli.comparison.changes import Changes
from tlora_cli.comparison.concept_folders import with_folders
from tlora_cli.comparison.grid import GRID, Grid, as_written, spelled_out
from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.mistakes import KeyPath, Mistake, recipe_error
from tlora_cli.recipe.reading import Origin, apply_override, origin_of, read_mapping, read_text
from tlora_cli.recipe.validation import validate

MEND = "mend the grid; docs/compare.md describes every key"


@dataclass(frozen=True)
class GridFile:
    """A grid as it was read.

    Attributes:
        grid: itself.
        source: its file.
        written: its data as written, with short forms.
        origins: line of each path in it, or the option that changed it.
        base: the base recipe, as plain data.
        base_source: the base recipe's file; empty if the grid holds it.
        base_origins: as `origins`, of the base recipe.
        changes: made from the command line.
    """

    grid: Grid
    source: str
    written: Mapping[str, Any]
    origins: dict[KeyPath, Origin]
    base: Mapping[str, Any]
    base_source: str = ""
    base_origins: dict[KeyPath, Origin] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)

    def mistake(self, path: KeyPath, text: str) -> Mistake:
        """Return a mistake of the value at `path`, with its line or that of its section."""
        return Mistake(path, text, *origin_of(self.origins, [path]))

    def mistake_in_base(self, path: KeyPath, text: str) -> Mistake:
        """Return a mistake of a value of the base recipe."""
        line, option = origin_of(self.base_origins, [path])
        if option:
            return Mistake(path, text, override=option)
        if not self.base_source:
            return self.mistake(("recipe", *path), text)
        place = f"{self.base_source}, line {line}" if line else self.base_source
        return self.mistake(("recipe",), f"{place}: {Mistake(path, text)}")


def load_grid(path: Path, options: Sequence[str] = ()) -> GridFile:
    """Read a grid file and its base recipe. Paths in it are relative to the current folder.

    Args:
        path: the grid file.
        options: `seed=7,8`, `base=toy-sdxl` or `train.steps=9`: other values of an axis, or of a
            key of the grid or of its recipe.

    Raises:
        UserError: naming every mistake in the grid's own keys, its line and its key. What doesn't
            fit together is found when the cells are made.
    """
    data, lines, mistakes = read_mapping(read_text(path, "grid"), str(path), "grid")
    origins = {place: Origin(line) for place, line in lines.items()}
    changes = Changes.of(options)
    mistakes += changes.put_into(data, origins)
    full, wrong_folders = with_folders(spelled_out(data))
    for one in wrong_folders:
        place = as_written(one.path, data)
        mistakes.append(Mistake(place, one.text, *origin_of(origins, [place])))
    known = [mistake.path for mistake in mistakes]
    grid, wrongs = validate(full, set(known), Grid, GRID)
    for wrong in wrongs:
        place = as_written(wrong.path, data)
        if any(place[: len(known_path)] == known_path for known_path in known):
            continue
        origin = origin_of(origins, [place])
        if origin.override:  # the same in all sections: told once
            place = tuple(part for part in place if part != "grid")[isinstance(place[1], int) :]
        mistake = Mistake(place, wrong.text, *origin)
        if mistake not in mistakes:
            mistakes.append(mistake)
    if grid is None or mistakes:
        raise recipe_error(mistakes, str(path), MEND)
    base, source, base_origins = _base_of(grid, data, path, origins)
    for option in changes.recipe:
        mistakes += apply_override(base, base_origins, option)
    if mistakes:
        raise recipe_error(mistakes, source or str(path), MEND)
    return GridFile(grid, str(path), data, origins, base, source, base_origins, changes)


def _base_of(
    grid: Grid, data: dict[str, Any], path: Path, origins: dict[KeyPath, Origin]
) -> tuple[dict[str, Any], str, dict[KeyPath, Origin]]:
    """Return the base recipe's data, its file (empty if the grid holds it), and its lines there."""
    if isinstance(grid.recipe, dict):
        return data["recipe"], "", {}
    try:
        text = read_text(Path(grid.recipe))
    except UserError as error:
        wrong = Mistake(("recipe",), error.what, *origin_of(origins, [("recipe",)]))
        raise recipe_error([wrong], str(path), MEND) from error
    base, lines, mistakes = read_mapping(text, grid.recipe)
    if mistakes:
        raise recipe_error(mistakes, grid.recipe)
    return base, grid.recipe, {place: Origin(line) for place, line in lines.items()}
