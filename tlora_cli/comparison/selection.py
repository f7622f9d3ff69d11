"""A part of a grid: the cells of some seeds, concepts or methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tlora_cli.comparison.cells import Cell, Plan
from tlora_cli.comparison.changes import AXES
from tlora_cli.foundation.errors import UserError, known_names

WHERE = "--only"


def part_of(plan: Plan, only: Sequence[str]) -> Plan:
    """Return a plan of the cells that fit all of `only`.

    Cells keep their folders, so the whole grid, run later, finds them finished.

    Args:
        plan: the whole grid.
        only: texts such as "seed=0" or "method=lora,tlora".

    Raises:
        UserError: for another axis, or a value that no cell has.
    """
    cells = plan.cells
    for text in only:
        axis, sign, values = text.partition("=")
        if not sign:
            raise UserError(
                f"{text!r} is no choice", where=WHERE, do="write AXIS=VALUE, such as seed=0"
            )
        if axis not in AXES:
            raise UserError(
                f"no axis {axis!r}",
                where=WHERE,
                do=f"{known_names(axis, AXES)}; a key of the recipe is changed for all cells with "
                f"--set {axis or 'KEY'}=VALUE",
            )
        wanted = values.split(",")
        known = dict.fromkeys(_value(cell, axis) for cell in plan.cells)
        for value in wanted:
            if value not in known:
                remedy = f"{known_names(value, known)}; to run others: --set {axis}=VALUES"
                raise UserError(f"the grid has no {axis} {value!r}", where=WHERE, do=remedy)
        cells = [cell for cell in cells if _value(cell, axis) in wanted]
    if not cells:
        raise UserError(
            "no cell fits all of " + " ".join(only), where=WHERE, do="leave one of them out"
        )
    arms = {cell.arm for cell in cells}
    baselines = {a: b for a, b in plan.baselines.items() if a in arms and b in arms}
    return replace(plan, cells=cells, baselines=baselines)


def _value(cell: Cell, axis: str) -> str:
    """Return a cell's value on an axis; "none" where it has none."""
    value = getattr(cell if axis in ("concept", "seed") else cell.arm, axis)
    return "none" if value is None else str(value)
