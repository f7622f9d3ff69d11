"""Names beside the dots of a figure, where they cover neither dots nor each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

SIZE = 8
DOT = 5.0
"""Half of what a dot takes, in points."""
GAP = 5.0
ANGLES = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
"""Sides of a dot, the better ones first: (right, up)."""
RINGS = (1, 2.4, 4, 6, 8, 11, 14)
"""Distances that a name may have from its dot, in gaps; beyond the first a line leads to it."""


def place_names(axes: Any, names: Sequence[tuple[str, float, float]]) -> None:
    """Write names beside points, each at the nearest place that is still free.

    Limits of the axes and the layout of the figure must be set before. A name that finds no free
    place takes the nearest one.

    Args:
        axes: where the dots are.
        names: (name, x, y) of each dot, in the axes' units.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # lays the figure out, so that places are known
    point = figure.dpi / 72
    at = [axes.transData.transform((x, y)) for _, x, y in names]
    taken = [_box(x, y, 2 * DOT * point, 2 * DOT * point) for x, y in at]
    inside = axes.get_window_extent()
    for (name, *spot), (x, y) in zip(names, at, strict=True):
        text = axes.annotate(name, spot, fontsize=SIZE, annotation_clip=False)
        drawn = text.get_window_extent()
        text.remove()
        places = [
            (ring, _beside(x, y, drawn.width, drawn.height, side, ring * GAP * point))
            for ring in RINGS
            for side in ANGLES
        ]
        free = (one for one in places if _inside(one[1], inside) and not _met(one[1], taken))
        ring, box = next(free, places[0])
        taken.append(box)
        axes.annotate(
            name,
            spot,
            (((box.x0 + box.x1) / 2 - x) / point, ((box.y0 + box.y1) / 2 - y) / point),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=SIZE,
            annotation_clip=False,
            path_effects=[withStroke(linewidth=2, foreground="white")],  # over lines, too
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "0.5", "shrinkA": 0, "shrinkB": 3}
            if ring > RINGS[0]
            else None,
        )


def _box(x: float, y: float, width: float, height: float) -> Bbox:
    return Bbox.from_bounds(x - width / 2, y - height / 2, width, height)


def _beside(
    x: float, y: float, width: float, height: float, side: tuple[int, int], gap: float
) -> Bbox:
    right, up = side
    return _box(x + right * (gap + width / 2), y + up * (gap + height / 2), width, height)


def _inside(box: Bbox, other: Bbox) -> bool:
    return bool(
        box.x0 >= other.x0 and box.x1 <= other.x1 and box.y0 >= other.y0 and box.y1 <= other.y1
    )


def _met(box: Bbox, taken: Sequence[Bbox]) -> bool:
    return any(box.overlaps(one) for one in taken)
