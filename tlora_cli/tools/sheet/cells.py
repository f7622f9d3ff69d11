"""The cells of a sheet: which adapter file, strength, schedule and seed each is drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlora_cli.foundation.errors import UserError
from tlora_cli.tools.sheet.axes import (
    AXES,
    METHOD,
    MOST,
    SCALE,
    SCALES,
    SCHEDULE,
    SCHEDULES_SHOWN,
    SEED,
    SEEDS,
    STEP,
    TRAINED,
    Given,
    Value,
)
from tlora_cli.tools.sheet.sources import Source, labels, shown_steps


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet.

    Attributes:
        row, column: its place.
        file: adapter file.
        scale: strength; 0 is the base alone.
        schedule: a name of `axes.schedule_names`.
        seed: of its noise.
    """

    row: int
    column: int
    file: Path
    scale: float
    schedule: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """A sheet that is to be drawn.

    Attributes:
        axes: names of the axes; the first goes down.
        rows, columns: labels; one empty label for an axis that isn't there.
        values: axis -> its values, as they are written on the sheet.
        cells: row by row.
    """

    axes: tuple[str, ...]
    rows: list[str]
    columns: list[str]
    values: dict[str, list[str]]
    cells: list[Cell]


def plan_cells(
    sources: Sequence[Source], axes: tuple[str, ...], given: Given, scale: float, seed: int
) -> Plan:
    """Return the cells of a sheet.

    Args:
        sources: adapters; several only if `method` is an axis.
        axes: one or two names.
        given: values that the user has named.
        scale: strength where it is no axis.
        seed: where it is no axis, else the first.

    Raises:
        UserError: if adapters, axes and values don't fit together.
    """
    if len(sources) > 1 and METHOD not in axes:
        raise UserError(
            f"{len(sources)} adapters are named, and no axis goes over them",
            where="--over",
            do=f"write --over {METHOD},{axes[0]}, or name one adapter",
        )
    if METHOD in axes and len(sources) < 2:
        raise UserError(
            "the axis method needs several adapters",
            where="--over",
            do="name them: tlora sheet runs/dog runs/dog-lora --over method,scale",
        )
    values: dict[str, tuple[Value, ...]] = {}
    for axis in axes:
        values[axis] = given.get(axis) or _default(axis, sources, seed)
    down = values[axes[0]]
    across: tuple[Value, ...] = values[axes[1]] if len(axes) > 1 else ("",)
    if len(down) * len(across) > MOST:
        raise UserError(
            f"the sheet would have {len(down) * len(across)} pictures, more than {MOST}",
            where="--values",
            do="name fewer values",
        )
    if len(axes) == 1:  # one row reads better than one column
        down, across = ("",), down
    named = (axes[0], axes[1]) if len(axes) > 1 else ("", axes[0])
    cells = []
    for row, one in enumerate(down):
        for column, other in enumerate(across):
            chosen = {named[0]: one, named[1]: other}
            source = sources[int(chosen.get(METHOD, 0))]
            step = chosen.get(STEP)
            base = step == 0
            cells.append(
                Cell(
                    row,
                    column,
                    source.result if base else source.file(None if step is None else int(step)),
                    0.0 if base else float(chosen.get(SCALE, scale)),
                    str(chosen.get(SCHEDULE, TRAINED)),
                    int(chosen.get(SEED, seed)),
                )
            )
    written = {axis: [_written(axis, v, sources) for v in values[axis]] for axis in axes}
    rows = [_label(named[0], v, sources) for v in down]
    columns = [_label(named[1], v, sources) for v in across]
    return Plan(axes, rows, columns, written, cells)


def _default(axis: str, sources: Sequence[Source], seed: int) -> tuple[Value, ...]:
    if axis == STEP:
        return shown_steps(sources)
    if axis == METHOD:
        return tuple(range(len(sources)))
    if axis == SEED:
        return tuple(range(seed, seed + SEEDS))
    return SCALES if axis == SCALE else SCHEDULES_SHOWN


def _written(axis: str, value: Value, sources: Sequence[Source]) -> str:
    if axis == METHOD:
        return labels(sources)[int(value)]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _label(axis: str, value: Value, sources: Sequence[Source]) -> str:
    """Return what stands beside a row or above a column."""
    if axis not in AXES:
        return ""
    text = _written(axis, value, sources)
    if axis == STEP and value == 0:
        return "step 0, the base"
    return text if axis == METHOD else f"{axis} {text}"
