"""The shapes of the eight classes, with what can be put on them.

Coordinates are pixels around the subject's middle, x to the right, y down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tlora_cli.toyworld.canvas import (
    Color,
    Point,
    Polygon,
    box,
    dome,
    ellipse,
    mirrored,
    star,
    stroke,
)

INK: Color = (38, 30, 52)
CREAM: Color = (250, 236, 205)
GLASS: Color = (196, 228, 246)
ORANGE: Color = (246, 150, 40)


@dataclass(frozen=True)
class Shape:
    """The looks of a class.

    Attributes:
        body: polygons in the subject's color; markings lie on them.
        dark: polygons in a darker tone of that color.
        details: polygons in fixed colors, above the body.
        behind: the same, behind the body.
        eyes: middles of the eyes.
        top: height at which a hat sits.
        bottom: height at which boots start.
        half_width: how far the body reaches sideways, for wings.
    """

    body: list[Polygon]
    eyes: tuple[Point, Point]
    top: float
    bottom: float = 12.0
    half_width: float = 10.0
    dark: list[Polygon] = field(default_factory=list)
    details: list[tuple[Polygon, Color]] = field(default_factory=list)
    behind: list[tuple[Polygon, Color]] = field(default_factory=list)


def _cat() -> Shape:
    ear: Polygon = [(-9.5, -5), (-9, -16), (-1.5, -10.5)]
    tail = stroke([(8, 11), (13, 9), (14.5, 3), (13, -2)], 4)
    return Shape(
        body=[ellipse(0, 7, 9.5, 7.5), ellipse(0, -4, 10.5, 8.5), ear, mirrored(ear), *tail],
        details=[([(-1.8, -1.6), (1.8, -1.6), (0, 0.6)], (240, 130, 150))],
        eyes=((-4, -5), (4, -5)),
        top=-10.5,
        bottom=13,
        half_width=8,
    )


def _fish() -> Shape:
    return Shape(
        body=[ellipse(-2, 0, 12.5, 9.5), [(7, 0), (16, -9), (14, 0), (16, 9)]],
        dark=[[(-6, -8.5), (4, -8), (3, -13)], [(-3, 8.5), (4, 8), (4, 13)]],
        eyes=((-10, -2.5), (-4.5, -2.5)),
        top=-9,
        bottom=9,
        half_width=9,
    )


def _bird() -> Shape:
    legs = [*stroke([(-3, 10), (-4, 15)], 2), *stroke([(3, 10), (4, 15)], 2)]
    return Shape(
        body=[ellipse(0, 1, 11.5, 11), [(-9, 2), (-18, -3), (-16, 3), (-18, 8), (-8, 7)]],
        dark=[ellipse(-3.5, 4, 5.5, 3.8)],
        details=[([(10, -4), (17.5, -0.5), (9.5, 3)], ORANGE)],
        behind=[(leg, ORANGE) for leg in legs],
        eyes=((1.5, -4), (7.5, -4)),
        top=-9.5,
        bottom=12,
    )


def _star() -> Shape:
    return Shape(
        body=[star(0, 0, 17, 8.2)],
        eyes=((-3.2, -1.5), (3.2, -1.5)),
        top=-13.5,
        bottom=10,
        half_width=9,
    )


def _mushroom() -> Shape:
    return Shape(
        body=[[*dome(0, -1, 16, 13.5), (15, 2), (-15, 2)]],
        details=[([(-5.5, 2), (5.5, 2), (6.5, 13), (-6.5, 13)], CREAM)],
        eyes=((-2.8, 6), (2.8, 6)),
        top=-13,
        bottom=12,
        half_width=12,
    )


def _house() -> Shape:
    return Shape(
        body=[box(-11, -4, 11, 13)],
        dark=[[(-14.5, -3), (0, -16.5), (14.5, -3)]],
        details=[(box(-3, 5.5, 3, 13), (122, 80, 52))],
        eyes=((-5.5, 1.5), (5.5, 1.5)),
        top=-13.5,
        bottom=12.5,
        half_width=10,
    )


def _car() -> Shape:
    wheels = [ellipse(x, 8.5, 4.6, 4.6) for x in (-8.5, 8.5)]
    hubs = [ellipse(x, 8.5, 1.8, 1.8) for x in (-8.5, 8.5)]
    window: Polygon = [(-7.5, -1), (-5, -7.2), (5.5, -7.2), (8, -1)]
    return Shape(
        body=[
            [(-16, 8), (-17, 1), (-14, -1.5), (15, -1.5), (17, 2), (16.5, 8)],
            [(-10.5, -1), (-6.5, -10), (7, -10), (11, -1)],
        ],
        details=[
            (window, GLASS),
            *((wheel, INK) for wheel in wheels),
            *((hub, (205, 205, 212)) for hub in hubs),
        ],
        eyes=((-2.8, -3.8), (3, -3.8)),
        top=-10,
        bottom=11.5,
        half_width=14,
    )


def _ghost() -> Shape:
    hem: Polygon = [(12, 13), (8, 10), (4, 14), (0, 10.5), (-4, 14), (-8, 10), (-12, 13)]
    return Shape(
        body=[[*dome(0, -3, 11.5, 12), *hem]],
        details=[(ellipse(0, 1.5, 1.8, 2.4), INK)],
        eyes=((-4, -5), (4, -5)),
        top=-13.5,
        bottom=12,
        half_width=10,
    )


SHAPES: dict[str, Callable[[], Shape]] = {
    "cat": _cat,
    "fish": _fish,
    "bird": _bird,
    "star": _star,
    "mushroom": _mushroom,
    "house": _house,
    "car": _car,
    "ghost": _ghost,
}
"""Class -> its shape."""
