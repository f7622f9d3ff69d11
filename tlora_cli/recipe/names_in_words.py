"""Help of the recipe about methods and schedules, put together from what these say themselves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from tlora_cli.families import FAMILIES
from tlora_cli.families.reach import REACHES
from tlora_cli.formulas.schedules import SCHEDULES
from tlora_cli.methods import METHODS, Method


def methods_help() -> str:
    """Return what `adapter.method` may be: the program's own methods, then those compared."""
    own = [_with_about(one) for one in METHODS.values() if not one.compared]
    compared = [_with_about(one) for one in METHODS.values() if one.compared]
    defaults = [f"{one.default_method} ({one.name})" for one in FAMILIES.values()]
    return (
        f"{', '.join(own)}; to compare with: {', '.join(compared)}. Default, by family: "
        f"{', '.join(defaults)}."
    )


def _with_about(method: Method) -> str:
    return f"{method.name} ({method.about})" if method.about else method.name


def schedules_help() -> str:
    """Return what `adapter.schedule.kind` may be; kinds with the same words stand together."""
    groups = groupby(SCHEDULES.items(), key=lambda item: item[1].about)
    return " ".join(f"{', '.join(name for name, _ in group)}: {about}." for about, group in groups)


def schedules_with_points() -> str:
    """Return the kinds of schedule that take points, as part of a sentence."""
    return listed([name for name, kind in SCHEDULES.items() if kind.takes_points])


def methods_beyond_attention() -> str:
    """Return the methods whose default targets are all layers, as part of a sentence."""
    return listed([one.name for one in METHODS.values() if one.reach in ("matrices", "everything")])


def reaches_help() -> str:
    """Return what `adapter.targets` may be by name."""
    return " ".join(f"{name}: {about}." for name, about in REACHES.items())


def listed(names: Sequence[str]) -> str:
    """Return names as English lists them."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
