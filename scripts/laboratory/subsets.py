"""The runs that a page shows: those of the grid, or a part that is named; others are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from laboratory.results import KEY, Results, Row
from tlora_cli.comparison.changes import AXES
from tlora_cli.foundation.errors import UserError, known_names

WHERE = "--only"
MAX_TOLD = 5
"""Runs that are told by name."""


@dataclass(frozen=True)
class Part:
    """A part of the runs: for each axis the values that it has; an axis that is left out has all.

    Attributes:
        values: axis -> values, as tables have them; `none` where a run has none.
    """

    values: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, options: Sequence[str]) -> Part:
        """Read options such as "seed=0,7".

        Raises:
            UserError: for what is no axis, or names no value.
        """
        found = {}
        for option in options:
            axis, _, values = option.partition("=")
            if axis not in AXES:
                raise UserError(f"no axis {axis!r}", where=WHERE, do=known_names(axis, AXES))
            if not values:
                raise UserError(
                    f"{option!r} names no value", where=WHERE, do=f"write {axis}=VALUE, or more"
                )
            found[axis] = values.split(",")
        return cls(found)

    def fits(self, row: Row) -> bool:
        """Whether a run belongs to the part."""
        return all((row.get(axis) or "none") in values for axis, values in self.values.items())

    def of_pairs(self) -> Part:
        """Return the part by concept and seed alone."""
        return Part({a: v for a, v in self.values.items() if a in ("concept", "seed")})

    def check(self, rows: Sequence[Row]) -> None:
        """Raise a UserError if a value is one that no run has."""
        for axis, values in self.values.items():
            known = dict.fromkeys(row.get(axis) or "none" for row in rows)
            for value in values:
                if value not in known:
                    raise UserError(
                        f"no run has {axis} {value!r}", where=WHERE, do=known_names(value, known)
                    )

    def __str__(self) -> str:
        """Return it as options say it."""
        return ", ".join(f"{axis} {' and '.join(v)}" for axis, v in self.values.items())


def unknown(rows: Sequence[Row], known: Results, keys: Mapping[str, str]) -> list[str]:
    """Say which runs are of no cell of a grid, and why; nothing if there are none.

    Args:
        rows: all that were found.
        known: those of them that belong to cells.
        keys: cell -> digest of all that its result depends on.
    """
    have = {row["cell"] for row in known.rows}
    others = {row["cell"]: row for row in rows if row["cell"] not in have}
    stale = [cell for cell, row in others.items() if cell in keys and row.get(KEY)]
    unfinished = [cell for cell, row in others.items() if cell in keys and not row.get(KEY)]
    strange = [cell for cell in others if cell not in keys]
    reasons = {
        "of other settings than the grid has now": stale,
        "without a result that says its settings": unfinished,
        "of no method, rank, schedule, variant or concept of the grid": strange,
    }
    return [
        f"Left out: {_counted(cells)} {reason}: {_named(cells)}."
        for reason, cells in reasons.items()
        if cells
    ]


def not_shown(rows: Sequence[Row]) -> list[str]:
    """Say which runs of other seeds and concepts are kept, but not on the page."""
    if not rows:
        return []
    pairs = sorted({f"{row['concept']} with seed {row['seed']}" for row in rows})
    return [
        f"Kept, but not shown: {_counted(rows)} of other concepts or seeds than the grid's "
        f"({_named(pairs)}). `python scripts/lab.py --only seed=... --page FILE` draws them."
    ]


def _counted(things: Sequence[object]) -> str:
    return "1 run" if len(things) == 1 else f"{len(things)} runs"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_TOLD} more" if len(names) > MAX_TOLD else ""
    return ", ".join(names[:MAX_TOLD]) + more
