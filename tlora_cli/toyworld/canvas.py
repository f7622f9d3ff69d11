"""Draw polygons three times too large and shrink: even, soft edges with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw

from tlora_cli.toyworld.factors import SIZE

SCALE = 3
"""Pixels of the canvas to a pixel of the picture, each way."""
SIDE = SIZE * SCALE

Point = tuple[float, float]
Polygon = list[Point]
Color = tuple[int, int, int]


def ellipse(x: float, y: float, rx: float, ry: float, corners: int = 28) -> Polygon:
    """Return an ellipse around (x, y) as a polygon."""
    angles = (2 * math.pi * number / corners for number in range(corners))
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def dome(x: float, y: float, rx: float, ry: float, corners: int = 20) -> Polygon:
    """Return the upper half of an ellipse, from left to right."""
    angles = (math.pi * (1 + number / corners) for number in range(corners + 1))
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def box(left: float, top: float, right: float, bottom: float) -> Polygon:
    """Return a rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def star(x: float, y: float, outer: float, inner: float, points: int = 5) -> Polygon:
    """Return a star, one point up."""
    corners = []
    for number in range(2 * points):
        radius = inner if number % 2 else outer
        angle = math.pi * number / points - math.pi / 2
        corners.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
    return corners


def stroke(points: Sequence[Point], width: float) -> list[Polygon]:
    """Return polygons that together make a line with round joints."""
    parts = [ellipse(x, y, width / 2, width / 2, 12) for x, y in points]
    for (x1, y1), (x2, y2) in pairwise(points):
        length = math.hypot(x2 - x1, y2 - y1) or 1.0
        nx, ny = (y2 - y1) / length * width / 2, (x1 - x2) / length * width / 2
        parts.append(
            [(x1 + nx, y1 + ny), (x2 + nx, y2 + ny), (x2 - nx, y2 - ny), (x1 - nx, y1 - ny)]
        )
    return parts


def mirrored(polygon: Polygon) -> Polygon:
    """Return the polygon flipped left to right around x = 0."""
    return [(-x, y) for x, y in polygon]


def shade(color: Color, factor: float) -> Color:
    """Return a darker (factor < 1) or lighter (> 1) color."""
    red, green, blue = (max(0, min(255, round(part * factor))) for part in color)
    return red, green, blue


@dataclass(frozen=True)
class Placing:
    """The map from coordinates around a subject to the picture; (0, 0) is the subject's middle.

    Attributes:
        x, y: the middle on the picture, in pixels.
        scale, angle, flipped: as in `Pose`.
    """

    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    angle: float = 0.0
    flipped: bool = False

    def __call__(self, polygon: Sequence[Point]) -> Polygon:
        """Return the polygon in canvas pixels."""
        turn = math.radians(self.angle)
        cos, sin = math.cos(turn) * self.scale, math.sin(turn) * self.scale
        mirror = -1 if self.flipped else 1
        return [
            (
                SCALE * (self.x + cos * mirror * x - sin * y),
                SCALE * (self.y + sin * mirror * x + cos * y),
            )
            for x, y in polygon
        ]


PICTURE = Placing()
"""Coordinates of the picture itself."""


class Canvas:
    """A picture being drawn; coordinates are picture pixels put through a `Placing`."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (SIDE, SIDE))
        self._pen = ImageDraw.Draw(self.image)

    def fill(self, polygon: Sequence[Point], color: Color, at: Placing = PICTURE) -> None:
        """Fill a polygon."""
        self._pen.polygon(at(polygon), fill=color)

    def through(self, mask: Image.Image, color: Color | Image.Image) -> None:
        """Put a color, or another canvas-size picture, where the mask is white."""
        if isinstance(color, Image.Image):
            self.image.paste(color, (0, 0), mask)
        else:
            self.image.paste(color, (0, 0, SIDE, SIDE), mask)

    def finished(self) -> Image.Image:
        """Return the picture, 64 x 64 RGB."""
        return self.image.reduce(SCALE)


def mask_of(polygons: Sequence[Polygon], at: Placing) -> Image.Image:
    """Return a canvas-size mask, white inside any of the polygons."""
    mask = Image.new("L", (SIDE, SIDE))
    pen = ImageDraw.Draw(mask)
    for polygon in polygons:
        pen.polygon(at(polygon), fill=255)
    return mask
