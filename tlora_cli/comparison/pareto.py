"""The Pareto plot of a comparison, as SVG that stands in the page and follows its colors."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from tlora_cli.comparison.bootstrap import Interval
from tlora_cli.foundation.axes import COLORS, Axis, frame
from tlora_cli.foundation.pages import legend

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 84, 34, 42, 62
RADIUS = 6.0
LABEL_PLACES = ((9, -8), (9, 20), (-9, -8), (-9, 20), (9, -24), (9, 36))
"""Places of a label beside its point, the better ones first; to the left it ends there."""
LETTER, LINE = 8, 15
"""About the size of a letter, to keep labels apart."""


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
    colors = {name: COLORS[n % len(COLORS)] for n, name in enumerate(_series(points))}
    best = front(points)
    labels = _Labels()
    parts = [*frame(across, up, x_name, y_name)]
    edge = sorted(best, key=lambda one: one.x.mean)
    if len(edge) > 1:
        places = " ".join(f"{across(one.x.mean):.1f},{up(one.y.mean):.1f}" for one in edge)
        parts.append(f'<polyline class="front" points="{places}"/>')
    for name, color in colors.items():
        own = [one for one in points if one.series == name]
        places = " ".join(f"{across(one.x.mean):.1f},{up(one.y.mean):.1f}" for one in own)
        parts.append(f'<g style="--c:{color}"><polyline class="series" points="{places}"/>')
        parts += [_mark(one, across, up, one in best, labels) for one in own]
        parts.append("</g>")
    title = html.escape(f"{y_name} against {x_name}")
    return (
        f'<svg class="plot pareto" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        + "".join(parts)
        + "</svg>"
        + legend(colors)
    )


def _series(points: Sequence[Point]) -> list[str]:
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

    def place(self, text: str, x: float, y: float) -> str:
        """Return a label beside a point."""
        width = LETTER * len(text)
        places = [(x + dx, x + dx - (width if dx < 0 else 0), y + dy) for dx, dy in LABEL_PLACES]
        free = (one for one in places if not self._covered(one[1], one[2], width))
        at, left, line = next(free, places[0])
        self._taken.append((left, line, width))
        anchor = ' text-anchor="end"' if at < x else ""
        label = html.escape(text)
        return f'<text class="mark" x="{at:.1f}" y="{line:.1f}"{anchor}>{label}</text>'

    def _covered(self, left: float, line: float, width: float) -> bool:
        return any(
            left < other + wide and other < left + width and abs(line - row) < LINE
            for other, row, wide in self._taken
        )


def _mark(point: Point, across: Axis, up: Axis, best: bool, labels: _Labels) -> str:
    x, y = across(point.x.mean), up(point.y.mean)
    bars = ""
    if point.x.low is not None and point.x.high is not None:
        bars += (
            f'<line class="bar" x1="{across(point.x.low):.1f}" x2="{across(point.x.high):.1f}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>'
        )
    if point.y.low is not None and point.y.high is not None:
        bars += (
            f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{up(point.y.low):.1f}" '
            f'y2="{up(point.y.high):.1f}"/>'
        )
    kind = "dot best" if best else "dot"
    title = html.escape(f"{point.label}: {point.x.mean:.3f}, {point.y.mean:.3f}")
    return (
        f'{bars}<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}">'
        f"<title>{title}</title></circle>{labels.place(point.mark, x, y)}"
    )
