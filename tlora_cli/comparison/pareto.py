"""The Pareto plot of a comparison: where everything lies; `pareto.svg.jinja` draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlora_cli.comparison.bootstrap import Interval
from tlora_cli.foundation.pages.axes import COLORS, Axis
from tlora_cli.foundation.pages.templates import part

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 84, 34, 42, 62
RADIUS = 6.0
LABEL_PLACES = ((9, -8), (9, 20), (-9, -8), (-9, 20), (9, -24), (9, 36))
"""Places of a label beside its point, the better ones first; to the left it ends there."""
LETTER, LINE = 8, 15
"""A letter is about so wide and a line so high; that keeps labels apart."""


@dataclass(frozen=True)
class Point:
    """One arm.

    Attributes:
        series: arms of one series share a color, and are joined by a line in the order given.
        mark: what is written at the point, e.g. its rank.
        label: its whole name.
        x, y: text and image similarity; more is better.
    """

    series: str
    mark: str
    label: str
    x: Interval
    y: Interval


@dataclass(frozen=True)
class Label:
    """Place of what is written beside a point; `ends` if it ends there."""

    x: float
    y: float
    ends: bool


@dataclass(frozen=True)
class Dot:
    """A point with its place and its label's; `best` if it is on the front."""

    point: Point
    x: float
    y: float
    best: bool
    label: Label


@dataclass(frozen=True)
class Series:
    """Points of one color, and the line that joins them."""

    color: str
    line: list[tuple[float, float]]
    dots: list[Dot]


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in one direction without losing in the other."""
    return [
        point
        for point in points
        if not any(
            other.x.mean >= point.x.mean
            and other.y.mean >= point.y.mean
            and (other.x.mean, other.y.mean) != (point.x.mean, point.y.mean)
            for other in points
        )
    ]


def pareto_svg(points: Sequence[Point], x_name: str, y_name: str) -> str:
    """Return the plot of image against text similarity.

    Args:
        points: at least one.
        x_name: name of the metric across.
        y_name: name of the metric upwards.
    """
    across = _axis([one.x for one in points], LEFT, WIDTH - RIGHT)
    up = _axis([one.y for one in points], HEIGHT - BOTTOM, TOP)
    colors = {name: COLORS[n % len(COLORS)] for n, name in enumerate(_names(points))}
    best = front(points)
    labels = _Labels()

    def place(point: Point) -> tuple[float, float]:
        return across(point.x.mean), up(point.y.mean)

    series = []
    for name, color in colors.items():
        own = [one for one in points if one.series == name]
        dots = [Dot(o, *place(o), o in best, labels.place(o.mark, *place(o))) for o in own]
        series.append(Series(color, [place(one) for one in own], dots))
    return part(
        "comparison/pareto.svg.jinja",
        "pareto",
        size=(WIDTH, HEIGHT),
        radius=RADIUS,
        across=across,
        up=up,
        x_name=x_name,
        y_name=y_name,
        front=[place(one) for one in sorted(best, key=lambda one: one.x.mean)],
        series=series,
        names=colors,
    )


def _names(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(one.series for one in points))


def _axis(values: Sequence[Interval], start: float, end: float) -> Axis:
    """Return an axis that the points fill for the most part; bars may go beyond."""
    means = [one.mean for one in values]
    low, high = min(means), max(means)
    bars = [one.high - one.low for one in values if one.low is not None and one.high is not None]
    room = 0.35 * (high - low) or 0.6 * max(bars, default=0.0) or max(abs(high) * 0.05, 0.01)
    return Axis(low - room, high + room, start, end)


class _Labels:
    """Finds places for labels where none is yet."""

    def __init__(self) -> None:
        self._taken: list[tuple[float, float, float]] = []

    def place(self, text: str, x: float, y: float) -> Label:
        """Return the place of a label beside a point."""
        width = LETTER * len(text)
        places = [(x + dx, x + dx - (width if dx < 0 else 0), y + dy) for dx, dy in LABEL_PLACES]
        free = (one for one in places if not self._covered(one[1], one[2], width))
        at, left, line = next(free, places[0])
        self._taken.append((left, line, width))
        return Label(at, line, ends=at < x)

    def _covered(self, left: float, line: float, width: float) -> bool:
        return any(
            left < other + wide and other < left + width and abs(line - row) < LINE
            for other, row, wide in self._taken
        )
