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
LETTER, LINE = 11, 22
"""A letter is so wide and a line so high where the screen is narrow and letters are largest."""
LABEL_PLACES = tuple(
    (dx, dy)
    for ring in range(4)
    for dx in (9, -9)
    for dy in (-8 - LINE * ring, LINE - 2 + LINE * ring)
)
"""Places of a label beside its point, the nearer ones first; to the left it ends there."""


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
    """Place of what is written beside a point.

    Attributes:
        x, y: of its start, or of its end.
        ends: whether it ends there.
        far: whether a line leads to it.
    """

    x: float
    y: float
    ends: bool
    far: bool


@dataclass(frozen=True)
class Dot:
    """A point with its place and its label's, None if there is no room; `best` if on the front."""

    point: Point
    x: float
    y: float
    best: bool
    label: Label | None


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

    def place(point: Point) -> tuple[float, float]:
        return across(point.x.mean), up(point.y.mean)

    labels = _Labels([place(one) for one in points])

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
    """Finds places for labels where no other label, no point and no edge is.

    Args:
        points: places of all points.
    """

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        self._points = points
        self._taken: list[tuple[float, float, float]] = []

    def place(self, text: str, x: float, y: float) -> Label | None:
        """Return the place of a label beside a point; None if it would touch something."""
        width = LETTER * len(text)
        for number, (dx, dy) in enumerate(LABEL_PLACES):
            left, line = x + dx - (width if dx < 0 else 0), y + dy
            if self._free(left, line, width, (x, y)):
                self._taken.append((left, line, width))
                return Label(x + dx, line, ends=dx < 0, far=number >= 4)
        return None

    def _free(self, left: float, line: float, width: float, own: tuple[float, float]) -> bool:
        right, top = left + width, line - LINE
        if left < LEFT or right > WIDTH or top < TOP - LINE or line > HEIGHT - BOTTOM:
            return False
        if any(
            left - RADIUS < x < right + RADIUS and top - RADIUS < y < line + RADIUS
            for x, y in self._points
            if (x, y) != own
        ):
            return False
        return not any(
            left < other + wide and other < right and abs(line - row) < LINE
            for other, row, wide in self._taken
        )
