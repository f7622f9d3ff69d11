"""Results of a grid, read from its runs or a table of them, and differences between its arms."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laboratory.spectra import columns
from tlora_cli.comparison.bootstrap import Interval, interval
from tlora_cli.comparison.tasks import result_key
from tlora_cli.foundation.files import write_text

ARM = ("method", "rank", "schedule", "variant")
KEY = "key"
"""Column: digest of all that a row depends on."""
COSTS = ("steps", "training seconds", "peak memory GB")
"""Columns of costs.csv that are kept with the scores."""
Row = dict[str, str]
Pair = tuple[str, int]
"""Concept and seed."""


@dataclass(frozen=True)
class Pick:
    """The pick of a grid's arm; None: whatever the arm has."""

    method: str | None = None
    rank: int | None = None
    schedule: str | None = None
    variant: str | None = None

    def fits(self, row: Row) -> bool:
        """Whether a row of cells.csv belongs to the arm."""
        wanted = {name: getattr(self, name) for name in ARM}
        return all(value is None or row[name] == str(value) for name, value in wanted.items())


@dataclass(frozen=True)
class Results:
    """The cells of a grid.

    Attributes:
        rows: of its cells.csv.
    """

    rows: list[Row]

    @classmethod
    def read(cls, table: Path) -> Results:
        """Read a cells.csv, or what `write` wrote."""
        with table.open(newline="", encoding="utf-8") as file:
            return cls(list(csv.DictReader(file)))

    @classmethod
    def of_runs(cls, folder: Path, *, spectra: bool = False) -> Results:
        """Read the folder of a grid, with keys and costs; with `spectra`, its adapters, too."""
        results = cls.read(folder / "cells.csv")
        costs = {row["cell"]: row for row in cls.read(folder / "costs.csv").rows}
        for row in results.rows:
            cell = folder / "cells" / row["cell"]
            row.update({name: costs[row["cell"]][name] for name in COSTS})
            row[KEY] = result_key(cell) or ""
            if spectra:
                found = columns(cell / "run" / "adapter.safetensors")
                row.update({name: str(value) for name, value in found.items()})
        return results

    def with_fresh(self, fresh: Results, keys: Mapping[str, str]) -> Results:
        """Return these rows with those of newer runs, in the grid's order.

        Args:
            fresh: of the newer runs.
            keys: cell -> digest of all that its result depends on; rows of other settings than
                the grid has now are left out (`subsets.unknown` tells of them).
        """
        rows = {
            row["cell"]: row
            for row in [*self.rows, *fresh.rows]
            if row.get(KEY) == keys.get(row["cell"])
        }
        return Results([rows[cell] for cell in keys if cell in rows])

    def write(self, table: Path) -> None:
        """Write the rows as a CSV table."""
        text = io.StringIO()
        names = dict.fromkeys(name for row in self.rows for name in row)  # some lack a start
        writer = csv.DictWriter(text, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(table, text.getvalue())

    def having(self, metrics: Iterable[str]) -> list[str]:
        """Return those of the metrics that a run has; grids of before S* don't have it."""
        return [name for name in metrics if any(row.get(name) for row in self.rows)]

    def values(self, arm: Pick, metric: str) -> dict[Pair, float]:
        """Return a metric of an arm by concept and seed.

        Raises:
            ValueError: if the pick fits cells of several arms.
        """
        own = [row for row in self.rows if arm.fits(row)]
        if len({tuple(row[name] for name in ARM) for row in own}) > 1:
            raise ValueError(f"{arm} fits several arms")
        return {
            (row["concept"], int(row["seed"])): float(row[metric]) for row in own if row.get(metric)
        }

    def median(self, arm: Pick, metric: str) -> float | None:
        """Return an arm's median; None if nothing of it is finished."""
        found = list(self.values(arm, metric).values())
        return float(np.median(found)) if found else None

    def mean(self, arm: Pick, metric: str) -> Interval | None:
        """Return an arm's mean with its interval; None if nothing of it is finished."""
        found = list(self.values(arm, metric).values())
        return interval(np.array(found)) if found else None

    def difference(self, arm: Pick, other: Pick, metric: str) -> Interval | None:
        """Return the paired difference of two arms with its interval."""
        a, b = self.values(arm, metric), self.values(other, metric)
        common = [pair for pair in a if pair in b]
        if not common:
            return None
        return interval(_array(a, common) - _array(b, common))

    def rank_correlation(self, arms: Sequence[Pick], x: str, y: str) -> Interval | None:
        """Return Spearman's correlation of two metrics over arms.

        It is taken over the arms for each concept and seed, then averaged over these pairs.
        """
        across, up = ([self.values(arm, name) for arm in arms] for name in (x, y))
        common = [pair for pair in across[0] if all(pair in one for one in [*across, *up])]
        if not common:
            return None
        found = []
        for pair in common:
            a, b = (_ranked(np.array([one[pair] for one in each])) for each in (across, up))
            spread = a.std() * b.std()
            found.append(((a - a.mean()) * (b - b.mean())).mean() / spread if spread else 0.0)
        return interval(np.array(found))


def _array(values: dict[Pair, float], pairs: list[Pair]) -> NDArray[np.float64]:
    return np.array([values[pair] for pair in pairs])


def _ranked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 0; equal values share the mean of theirs."""
    return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])
