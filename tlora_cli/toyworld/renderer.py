"""Scene -> picture and subject mask; the same scene gives the same pixels."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageFilter

from tlora_cli.toyworld.backgrounds import BACKGROUNDS
from tlora_cli.toyworld.canvas import (
    SCALE,
    SIDE,
    Canvas,
    Color,
    Placing,
    Polygon,
    box,
    ellipse,
    mask_of,
    mirrored,
    shade,
    stroke,
)
from tlora_cli.toyworld.factors import Scene
from tlora_cli.toyworld.subjects import INK, SHAPES, Shape

COLORS: dict[str, Color] = {
    "red": (222, 44, 44),
    "orange": (246, 138, 28),
    "yellow": (252, 222, 62),
    "green": (58, 168, 66),
    "blue": (46, 96, 226),
    "purple": (132, 62, 192),
    "pink": (252, 136, 190),
    "white": (246, 246, 248),
}
TONES: dict[str, Color] = {"light": (255, 250, 226), "dark": (46, 36, 66)}
LIGHT_ON_WHITE: Color = (176, 196, 226)
"""The light tone on a white subject, where cream would not show."""
WHITE: Color = (255, 255, 255)
LOWER = 0.68
"""Brightness of the lower part of a two-tone subject, in terms of its color."""
LEFT_TO_RIGHT = {"left": 19.0, "center": 32.0, "right": 45.0}
MIDDLE_HEIGHT = 36.0
OUTLINE = 3
"""Width of the dark edge in canvas pixels: one pixel of the picture."""

Part = tuple[Polygon, Color]


@dataclass(frozen=True)
class Picture:
    """A drawing.

    Attributes:
        image: 64 x 64 RGB.
        mask: 64 x 64 L, white on the subject (with its private feature, without accessory).
        scene: what was drawn.
    """

    image: Image.Image
    mask: Image.Image
    scene: Scene


def draw(scene: Scene) -> Picture:
    """Draw a scene."""
    rng = random.Random(scene.texture)
    canvas = Canvas()
    BACKGROUNDS[scene["background"]](canvas, rng)
    pose = scene.pose
    at = Placing(
        LEFT_TO_RIGHT[scene["position"]] + pose.dx,
        MIDDLE_HEIGHT + pose.dy,
        pose.scale,
        pose.angle,
        pose.flipped,
    )
    shape = SHAPES[scene["class"]]()
    color = shade(COLORS[scene["color"]], rng.uniform(0.95, 1.03))
    silhouette = _subject(canvas, at, shape, color, scene)
    side = {"left": 1.0, "right": -1.0, "center": rng.choice((-1.0, 1.0))}[scene["position"]]
    upright = Placing(at.x, at.y, at.scale, at.angle / 2, flipped=side < 0)
    _put(canvas, upright, _accessory(scene["accessory"], shape))
    return Picture(canvas.finished(), silhouette.reduce(SCALE), scene)


def draw_place(background: str, texture: int) -> Image.Image:
    """Draw a background alone, 64 x 64 RGB.

    Args:
        background: one of the world's.
        texture: seed of its details.
    """
    canvas = Canvas()
    BACKGROUNDS[background](canvas, random.Random(texture))
    return canvas.finished()


def _subject(canvas: Canvas, at: Placing, shape: Shape, color: Color, scene: Scene) -> Image.Image:
    """Draw the subject and return its silhouette at canvas size."""
    feature = _feature(scene["feature"], shape)
    in_front = scene["feature"] != "wings"
    if not in_front:
        _put(canvas, at, feature)
    _put(canvas, at, shape.behind)
    body = mask_of(shape.body, at)
    dark = mask_of(shape.dark, at)
    outer = _merged(body, dark).filter(ImageFilter.MaxFilter(2 * OUTLINE + 1))
    canvas.through(outer, INK)
    canvas.through(dark, shade(color, 0.72))
    canvas.through(body, color)
    if scene["shade"] == "two-tone":
        canvas.through(_overlap(mask_of([_lower_part(shape)], at), body), shade(color, LOWER))
    if scene["marking"] != "none":
        tone, kind = scene["marking"].split()
        on_white = tone == "light" and scene["color"] == "white"
        marks = mask_of(MARKS[kind], at)
        canvas.through(_overlap(marks, body), LIGHT_ON_WHITE if on_white else TONES[tone])
    if shape.dark and scene["class"] == "bird":
        canvas.through(dark, shade(color, 0.72))  # the wing lies on the body
    _put(canvas, at, shape.details)
    for x, y in shape.eyes:
        for polygon, paint in _eye(scene["eyes"], x, y):
            canvas.fill(polygon, paint, at)
    if in_front:
        _put(canvas, at, feature)
    others = [polygon for polygon, _ in (*shape.behind, *shape.details, *feature)]
    return _merged(outer, mask_of(others, at))


def _lower_part(shape: Shape) -> Polygon:
    """Return what is below the middle of the body."""
    heights = [y for polygon in shape.body for _, y in polygon]
    middle = (min(heights) + max(heights)) / 2 + 1.5
    return box(-30, middle, 30, 30)


def _eye(name: str, x: float, y: float) -> list[Part]:
    if name == "dark":
        return [(ellipse(x, y, 2.3, 2.8, 18), INK), (ellipse(x - 0.7, y - 1, 0.8, 0.9, 10), WHITE)]
    lid: list[Part] = [(box(x - 2.6, y - 3, x + 2.6, y + 0.2), INK)] if name == "sleepy" else []
    return [(ellipse(x, y, 2.3, 2.8, 18), WHITE), (ellipse(x, y + 0.5, 1.35, 1.7, 14), INK), *lid]


def _put(canvas: Canvas, at: Placing, parts: list[Part]) -> None:
    """Draw parts in fixed colors with a thin dark edge around all of them."""
    if not parts:
        return
    edge = mask_of([polygon for polygon, _ in parts], at).filter(ImageFilter.MaxFilter(5))
    canvas.through(edge, INK)
    for polygon, color in parts:
        canvas.fill(polygon, color, at)


def _merged(one: Image.Image, two: Image.Image) -> Image.Image:
    merged = one.copy()
    merged.paste(255, (0, 0, SIDE, SIDE), two)
    return merged


def _overlap(one: Image.Image, two: Image.Image) -> Image.Image:
    overlap = Image.new("L", (SIDE, SIDE))
    overlap.paste(one, (0, 0), two)
    return overlap


MARKS: dict[str, list[Polygon]] = {
    "stripes": [box(x, -20, x + 3.2, 20) for x in (-14.6, -8.1, -1.6, 4.9, 11.4)],
    "dots": [
        ellipse(7 * column + (3.5 if row % 2 else 0), 6.2 * row, 2.1, 2.1, 16)
        for row in range(-3, 4)
        for column in range(-3, 4)
    ],
    "sash": [[(-20, 10), (-16.5, 15.5), (20, -10), (16.5, -15.5)]],
}
"""Kind of marking -> its polygons; they show where they lie on the body."""


def _feature(name: str, shape: Shape) -> list[Part]:
    parts: list[Part] = []
    if name == "wings":
        for polygon, color in (
            (ellipse(-shape.half_width - 5, -5, 7, 6.5), (186, 240, 226)),
            (ellipse(-shape.half_width - 4, 4.5, 5, 4.8), (150, 222, 210)),
        ):
            parts += [(polygon, color), (mirrored(polygon), color)]
    elif name == "antennae":
        for side in (-1, 1):
            rod = [
                (side * 5.0, shape.top + 3),
                (side * 7.5, shape.top - 3),
                (side * 11, shape.top - 5.5),
            ]
            parts += [(part, INK) for part in stroke(rod, 1.6)]
            parts.append((ellipse(side * 11, shape.top - 5.5, 2.7, 2.7, 16), (232, 60, 190)))
    elif name == "boots":
        for side in (-1, 1):
            leg = box(side * 5.5 - 2, shape.bottom - 1.5, side * 5.5 + 2, shape.bottom + 5.5)
            foot = ellipse(side * 7, shape.bottom + 5, 4.2, 2.4, 18)
            parts += [(leg, (112, 66, 40)), (foot, (112, 66, 40))]
    return parts


def _accessory(name: str, shape: Shape) -> list[Part]:
    top = shape.top
    if name == "hat":
        return [
            (box(-5, top - 9, 5, top + 0.5), (40, 40, 48)),
            (box(-5, top - 3, 5, top - 0.8), (206, 44, 54)),
            (ellipse(0, top + 0.5, 8.5, 1.8, 20), (40, 40, 48)),
        ]
    if name == "crown":
        low, high = top + 1.2, top - 6
        zigzag = [(-7, low), (-8, high), (-3.6, top - 2.4), (0, high - 2), (3.6, top - 2.4)]
        gold: Part = ([*zigzag, (8, high), (7, low)], (255, 206, 44))
        return [gold, (ellipse(0, top - 1, 1.3, 1.3, 12), (206, 44, 120))]
    if name == "balloon":
        string = stroke([(11, 4), (15.5, -8)], 1)
        parts: list[Part] = [(part, INK) for part in string]
        parts.append((ellipse(16.5, -15.5, 6.4, 7.4), (236, 52, 62)))
        return [*parts, (ellipse(14.3, -18, 1.6, 2, 14), (255, 200, 200))]
    if name == "flag":
        cloth: Polygon = [(15.6, -18), (15.6, -8), (28, -13)]
        return [(box(14, -18.5, 15.8, 13), (150, 104, 62)), (cloth, (44, 186, 220))]
    return []
