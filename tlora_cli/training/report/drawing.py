"""Plots of a report, as SVG that stands in the page and follows its colors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.axes import COLORS, Axis, frame
from tlora_cli.foundation.pages import legend, text

WIDTH, HEIGHT = 560, 330
LEFT, RIGHT, TOP, BOTTOM = 74, 28, 42, 62
MAX_DOTS = 1000
"""Of all lines of a plot; of more, every so-manieth is drawn."""
BINS = 25
"""Of timesteps."""
BARS_SHARE = 0.25
"""Of a plot's height, at most, that bars behind a line take."""

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
    across = Axis(0, max(steps, 1), LEFT, WIDTH - RIGHT, whole=True)
    up = Axis(low, high, HEIGHT - BOTTOM, TOP, log=log)
    parts = frame(across, up, "step", y_name)
    every = 1 + sum(len(line.dots) for line in lines) // MAX_DOTS
    for line in lines:
        dots = "".join(
            f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="1.6"/>'
            for x, y in line.dots[::every]
            if low <= y <= high
        )
        points = [(x, y) for x, y in line.points if y > 0 or not log]
        place = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        drawn = f'<polyline class="line {line.kind}" points="{place}"/>'
        if len(points) == 1:
            drawn = f'<circle class="one" cx="{across(points[0][0]):.1f}" ' + (
                f'cy="{up(points[0][1]):.1f}" r="4"/>'
            )
        title = f"<title>{text(line.name)}</title>" if line.name else ""
        parts.append(f'<g style="--c:{line.color}"><g class="dots">{dots}</g>{title}{drawn}</g>')
    for number, mark in enumerate(marks):
        x, right = across(mark.step), across(mark.step) > WIDTH / 2
        anchor, shift = ("end", -6) if right else ("start", 6)
        parts.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            f'<text x="{x + shift:.1f}" y="{HEIGHT - BOTTOM - 10 - 22 * number}" '
            f'text-anchor="{anchor}">{text(mark.name)}</text>'
        )
    return _svg(parts, f"{y_name} over the steps") + legend(
        {line.name: line.color for line in lines if line.name}
    )


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
    across = Axis(0, top, LEFT, WIDTH - RIGHT, whole=True)
    rank = schedule.rank if schedule else 1
    up = Axis(0, rank * 1.08, HEIGHT - BOTTOM, TOP, whole=True)
    bins = [0] * BINS
    for timestep, count in counts.items():
        bins[min(BINS - 1, int(timestep * BINS / top))] += count
    tallest = max(max(bins), 1)
    room = BARS_SHARE if schedule else 0.9
    bottom, width = HEIGHT - BOTTOM, (WIDTH - LEFT - RIGHT) / BINS
    parts = frame(across, up, "timestep (left: clean, right: noise)", "active rank")
    if schedule is None:
        parts = frame(
            across,
            Axis(0, tallest / 0.9, bottom, TOP, whole=True),
            "timestep (left: clean, right: noise)",
            "times drawn",
        )
    for number, count in enumerate(bins):
        height = count / tallest * (bottom - TOP) * room
        first, last = number * top / BINS, (number + 1) * top / BINS
        parts.append(
            f'<rect class="bar" x="{LEFT + number * width + 0.5:.1f}" y="{bottom - height:.1f}" '
            f'width="{width - 1:.1f}" height="{height:.1f}">'
            f"<title>timesteps {first:g} to {last:g}: drawn {count} times</title></rect>"
        )
    if schedule:
        ranks = schedule.active_rank(torch.arange(top + 1)).tolist()
        place = [f"{across(0):.1f},{up(ranks[0]):.1f}"]
        for timestep, (before, now) in enumerate(pairwise(ranks), 1):
            if now != before:
                x = across(timestep)
                place += [f"{x:.1f},{up(before):.1f}", f"{x:.1f},{up(now):.1f}"]
        place.append(f"{across(top):.1f},{up(ranks[-1]):.1f}")
        parts.append(
            f'<g style="--c:{COLORS[0]}"><polyline class="line" points="{" ".join(place)}"/></g>'
        )
    return _svg(parts, "active rank against the timestep")


def count_plot(counts: dict[int, int]) -> str:
    """Return bars of how often each rank was active.

    Args:
        counts: rank -> how often, at least one rank.
    """
    low, high = min(counts), max(counts)
    across = Axis(low - 0.5, high + 0.5, LEFT, WIDTH - RIGHT, whole=True)
    tallest = max(*counts.values(), 1)
    up = Axis(0, tallest * 1.08, HEIGHT - BOTTOM, TOP, whole=True)
    parts = frame(across, up, "active rank", "times drawn")
    width = (WIDTH - LEFT - RIGHT) / (high - low + 1)
    for rank, count in counts.items():
        parts.append(
            f'<rect class="bar solid" x="{across(rank) - width * 0.42:.1f}" y="{up(count):.1f}" '
            f'width="{width * 0.84:.1f}" height="{HEIGHT - BOTTOM - up(count):.1f}">'
            f"<title>rank {rank}: drawn {count} times</title></rect>"
        )
    return _svg(parts, "how often each rank was drawn")


def _svg(parts: Sequence[str], title: str) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(title)}">'
        + "".join(parts)
        + "</svg>"
    )
