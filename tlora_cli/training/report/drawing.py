"""Plots of a report: where everything lies; `plots.svg.jinja` draws it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.pages.axes import COLORS, Axis
from tlora_cli.foundation.pages.templates import part

TEMPLATE = "training/report/plots.svg.jinja"
WIDTH, HEIGHT = 560, 330
LEFT, RIGHT, TOP, BOTTOM = 74, 28, 42, 62
MAX_DOTS = 1000
"""Most dots of all lines of a plot; of more, every so-manieth is drawn."""
BINS = 25
"""Bars that the timesteps are counted in."""
BARS_SHARE = 0.25
"""Share of a plot's height that bars behind a line take at most."""

Places = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A line of a plot.

    Attributes:
        name: in the legend; empty for none.
        points: (x, y) in order.
        color: CSS.
        dots: single values behind it.
        kind: its class: `thin`, or empty.
    """

    name: str
    points: Places
    color: str
    dots: Places = ()
    kind: str = ""


@dataclass(frozen=True)
class Mark:
    """A step that a plot points to, with a word for it."""

    step: int
    name: str


@dataclass(frozen=True)
class Bar:
    """A bar: what it counts, how often that was drawn, and its place in pixels."""

    name: str
    count: int
    x: float
    y: float
    width: float
    height: float


def line_plot(
    lines: Sequence[Line],
    steps: int,
    y_name: str,
    *,
    log: bool = False,
    ends: tuple[float, float] | None = None,
    marks: Sequence[Mark] = (),
) -> str:
    """Return lines over the steps of a run.

    Args:
        lines: with at least one point or dot in all.
        steps: end of the axis across.
        y_name: what is shown.
        log: on a logarithmic axis; values that are not above 0 are left out.
        ends: of the axis upwards; without them the lines fill it.
        marks: steps to point to, each on a line of its own in height.
    """
    low, high = ends or _ends(lines, log)
    across, up = _across(0, max(steps, 1)), _upwards(low, high, log=log)
    every = 1 + sum(len(line.dots) for line in lines) // MAX_DOTS
    placed = [
        replace(
            line,
            points=[(across(x), up(y)) for x, y in line.points if y > 0 or not log],
            dots=[(across(x), up(y)) for x, y in line.dots[::every] if low <= y <= high],
        )
        for line in lines
    ]
    names = {line.name: line.color for line in lines if line.name}
    return _drawn(
        "line_plot", across=across, up=up, y_name=y_name, lines=placed, names=names, marks=marks
    )


def _across(low: float, high: float) -> Axis:
    return Axis(low, high, LEFT, WIDTH - RIGHT, whole=True)


def _upwards(low: float, high: float, *, log: bool = False, whole: bool = False) -> Axis:
    return Axis(low, high, HEIGHT - BOTTOM, TOP, log=log, whole=whole)


def _drawn(macro: str, **values: object) -> str:
    return part(TEMPLATE, macro, size=(WIDTH, HEIGHT), **values)


def _ends(lines: Sequence[Line], log: bool) -> tuple[float, float]:
    """Return ends that hold all lines with some room, and dots as far as that is not much more."""
    values = [y for line in lines for _, y in (line.points or line.dots)]
    values = [value for value in values if value > 0 or not log]
    if not values:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(values), max(values)
    if log:
        return low / 1.8, high * 1.8
    return 0.0, max(high, 1e-9) * 1.15


def rank_plot(schedule: RankSchedule | None, counts: Counter[float], top: int) -> str:
    """Return the active rank against the timestep, before bars of how often timesteps were drawn.

    Args:
        schedule: of the run, or None.
        counts: how often each timestep was drawn.
        top: end of the axis of timesteps.
    """
    bins = [0] * BINS
    for timestep, count in counts.items():
        bins[min(BINS - 1, int(timestep * BINS / top))] += count
    tallest = max(max(bins), 1)
    across = _across(0, top)
    if schedule is None:
        up, y_name, room = _upwards(0, tallest / 0.9, whole=True), "times drawn", 0.9
    else:
        up, y_name, room = _upwards(0, schedule.rank * 1.08, whole=True), "active rank", BARS_SHARE
    width = (WIDTH - LEFT - RIGHT) / BINS
    bars = []
    for number, count in enumerate(bins):
        height = count / tallest * (up.start - up.end) * room
        name = f"timesteps {number * top / BINS:g} to {(number + 1) * top / BINS:g}"
        x = LEFT + number * width + 0.5
        bars.append(Bar(name, count, x, up.start - height, width - 1, height))
    steps = [] if schedule is None else _steps(schedule, across, up, top)
    return _drawn(
        "rank_plot", across=across, up=up, y_name=y_name, bars=bars, steps=steps, color=COLORS[0]
    )


def _steps(schedule: RankSchedule, across: Axis, up: Axis, top: int) -> Places:
    """Return the corners of the line that the active rank makes over the timesteps."""
    ranks = schedule.active_rank(torch.arange(top + 1)).tolist()
    corners = [(across(0), up(ranks[0]))]
    for timestep, (before, now) in enumerate(pairwise(ranks), 1):
        if now != before:
            corners += [(across(timestep), up(before)), (across(timestep), up(now))]
    return [*corners, (across(top), up(ranks[-1]))]


def count_plot(counts: dict[int, int]) -> str:
    """Return bars of how often each rank was active.

    Args:
        counts: rank -> how often, at least one rank.
    """
    low, high = min(counts), max(counts)
    across = _across(low - 0.5, high + 0.5)
    up = _upwards(0, max(*counts.values(), 1) * 1.08, whole=True)
    width = (WIDTH - LEFT - RIGHT) / (high - low + 1)
    bars = []
    for rank, count in counts.items():
        x, y = across(rank) - width * 0.42, up(count)
        bars.append(Bar(f"rank {rank}", count, x, y, width * 0.84, up.start - y))
    return _drawn("count_plot", across=across, up=up, bars=bars)
