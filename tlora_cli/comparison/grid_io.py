"""Grid files: YAML -> the grid, and all that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.comparison.grid import GRID, Grid, as_written, spelled_out
from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.mistakes import KeyPath, Mistake, recipe_error
from tlora_cli.recipe.reading import read_mapping, read_text
from tlora_cli.recipe.validation import validate

MEND = "mend the grid; docs/compare.md describes every key"


@dataclass(frozen=True)
class GridFile:
    """A grid as it was read.

    Attributes:
        grid: itself.
        source: its file.
        written: its data as written, with short forms.
        lines: line of each path in it.
        base: the base recipe, as plain data.
        base_source: the base recipe's file; empty if the grid holds it.
        base_lines: line of each path in that file.
    """

    grid: Grid
    source: str
    written: Mapping[str, Any]
    lines: Mapping[KeyPath, int]
    base: Mapping[str, Any]
    base_source: str = ""
    base_lines: Mapping[KeyPath, int] | None = None

    def mistake(self, path: KeyPath, text: str) -> Mistake:
        """Return a mistake of the value at `path`, with its line or that of its section."""
        return Mistake(path, text, _line(self.lines, path))

    def mistake_in_base(self, path: KeyPath, text: str) -> Mistake:
        """Return a mistake of a value of the base recipe."""
        if not self.base_source:
            return self.mistake(("recipe", *path), text)
        line = _line(self.base_lines or {}, path)
        place = f"{self.base_source}, line {line}" if line else self.base_source
        return self.mistake(("recipe",), f"{place}: {Mistake(path, text)}")


def load_grid(path: Path) -> GridFile:
    """Read a grid file and its base recipe. Paths in it are relative to the current folder.

    Raises:
        UserError: naming every mistake in the grid's own keys, its line and its key. What doesn't
            fit together is found when the cells are made.
    """
    data, lines, mistakes = read_mapping(read_text(path, "grid"), str(path), "grid")
    known = [mistake.path for mistake in mistakes]
    grid, wrongs = validate(spelled_out(data), set(known), Grid, GRID)
    for wrong in wrongs:
        place = as_written(wrong.path, data)
        if not any(place[: len(known_path)] == known_path for known_path in known):
            mistakes.append(Mistake(place, wrong.text, _line(lines, place)))
    if grid is None or mistakes:
        raise recipe_error(mistakes, str(path), MEND)
    if isinstance(grid.recipe, dict):
        return GridFile(grid, str(path), data, lines, data["recipe"])
    try:
        text = read_text(Path(grid.recipe))
    except UserError as error:
        wrong_path = Mistake(("recipe",), error.what, _line(lines, ("recipe",)))
        raise recipe_error([wrong_path], str(path), MEND) from error
    base, base_lines, base_mistakes = read_mapping(text, grid.recipe)
    if base_mistakes:
        raise recipe_error(base_mistakes, grid.recipe)
    return GridFile(grid, str(path), data, lines, base, grid.recipe, base_lines)


def _line(lines: Mapping[KeyPath, int], path: KeyPath) -> int | None:
    """Return the line of a value, or of the nearest section around it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path) if path else None
