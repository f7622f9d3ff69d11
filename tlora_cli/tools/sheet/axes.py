"""The axes of a sheet: their names, and the values that are given for them. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tlora_cli.formulas.schedules import SCHEDULES
from tlora_cli.foundation.errors import UserError, known_names

STEP, SCALE, METHOD, SCHEDULE, SEED = "step", "scale", "method", "schedule", "seed"
AXES = {
    STEP: "the checkpoints of a run",
    SCALE: "strengths of the adapter",
    METHOD: "the adapters that are named",
    SCHEDULE: "rank schedules to draw under",
    SEED: "seeds of the noise",
}
"""Name of an axis -> what goes along it."""

TRAINED, NONE = "trained", "none"
"""The schedule of the file; and all ranks always, as programs draw that know no schedule."""
SCALES = (0.5, 0.75, 1.0, 1.25)
SCHEDULES_SHOWN = (TRAINED, NONE)
SEEDS = 4
"""Default values; seeds are counted from the one that is given."""
MOST = 400
"""Pictures on one sheet."""

Value = int | float | str
Given = dict[str, tuple[Value, ...]]
"""Name of an axis -> its values, of those that the user has named."""


def parse_axes(text: str) -> tuple[str, ...]:
    """Return the axes of `--over`: the first goes down, the second across.

    Raises:
        UserError: for other names, or none, one twice or more than two.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in AXES:
            raise UserError(f"there is no axis {name!r}", "--over", known_names(name, AXES))
    if not 1 <= len(names) <= 2 or len(set(names)) < len(names):
        raise UserError(
            f"a sheet has two axes, or one, and these are {text!r}",
            where="--over",
            do=f"name two of {', '.join(AXES)}, such as --over step,scale",
        )
    return names


def parse_values(texts: Sequence[str], axes: Sequence[str]) -> Given:
    """Return the values that `--values AXIS=VALUE,VALUE` gives.

    Raises:
        UserError: for an axis that the sheet doesn't have, or values that it can't take.
    """
    given: Given = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip()
        where = f"--values {text}"
        if not equals or name not in axes:
            raise UserError(
                f"{name!r} is no axis of this sheet",
                where=where,
                do=f"write --values {axes[0]}=VALUE,VALUE; the axes are {', '.join(axes)}",
            )
        if name == METHOD:
            raise UserError(
                "the values of method are the adapters themselves",
                where=where,
                do="name several adapters: tlora sheet runs/dog runs/dog-lora --over method,...",
            )
        words = [word.strip() for word in values.split(",") if word.strip()]
        if not words:
            raise UserError("no value is named", where, f"write --values {name}=VALUE,VALUE")
        given[name] = tuple(dict.fromkeys(_value(name, word, where) for word in words))
    return given


def _value(axis: str, word: str, where: str) -> Value:
    if axis == SCHEDULE:
        known = schedule_names()
        if word not in known:
            raise UserError(f"there is no schedule {word!r}", where, known_names(word, known))
        return word
    try:
        number = float(word) if axis == SCALE else int(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (axis != SCALE and number < 0):
        kind = "a number" if axis == SCALE else "a whole number from 0 on"
        raise UserError(f"{axis} {word!r} is not {kind}", where, f"write {kind}")
    return number


def schedule_names() -> list[str]:
    """Return what a sheet can draw under: kinds that need no points, which no file has to spare."""
    kinds = [name for name, kind in SCHEDULES.items() if not kind.takes_points]
    return [TRAINED, NONE, *kinds]
