"""The parts of a comparison: cells, each one run, and arms, which are compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tlora_cli.comparison.grid import Grid
from tlora_cli.foundation.files import writable
from tlora_cli.recipe.models import Recipe

MARK = "grid.yaml"
"""Copy of the grid in the output folder: where it stands, a comparison belongs."""
CELLS = "cells"
"""Folder of the cells' folders."""


@dataclass(frozen=True, order=True)
class Arm:
    """One side of a comparison: all cells that differ in concept and seed only.

    Attributes:
        method: of the adapter.
        rank: None for methods without ranks.
        schedule: its label; None for methods whose rank is not scheduled.
        variant: its name; None if the grid has none.
    """

    method: str
    rank: int | None
    schedule: str | None
    variant: str | None

    @property
    def name(self) -> str:
        """The arm in names of folders: letters, digits, -, _ and dots."""
        rank = None if self.rank is None else f"r{self.rank}"
        return "-".join(p for p in (self.method, rank, self.schedule, self.variant) if p)


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        arm: what it belongs to.
        concept: name of the concept.
        seed: of the training.
        recipe: all that is trained.
        images: the real pictures, the same for all cells of a concept.
    """

    arm: Arm
    concept: str
    seed: int
    recipe: Recipe
    images: str | list[str]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.arm.name}-{self.concept}-s{self.seed}"

    @property
    def pair(self) -> tuple[str, int]:
        """The pair of concept and seed that it is compared on."""
        return self.concept, self.seed


@dataclass(frozen=True)
class Plan:
    """All that a comparison runs.

    Attributes:
        grid: the grid.
        cells: in the order of the file.
        baselines: arm -> the arm it is compared with; arms that are a baseline are left out.
        prompts: of the evaluation; None for what suits the concept.
    """

    grid: Grid
    cells: list[Cell]
    baselines: dict[Arm, Arm]
    prompts: tuple[str, ...] | None

    @property
    def arms(self) -> list[Arm]:
        """The arms, in the order of the file."""
        return list(dict.fromkeys(cell.arm for cell in self.cells))

    @property
    def folder(self) -> Path:
        """The folder of all runs and tables."""
        return writable(self.grid.output)

    def cell_folder(self, cell: Cell) -> Path:
        """Return the folder of a cell's run, evaluation and result."""
        return self.folder / CELLS / cell.name
