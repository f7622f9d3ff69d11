"""The eight backgrounds, each with details that differ from picture to picture."""

from __future__ import annotations

import random
from collections.abc import Callable

from tlora_cli.toyworld.canvas import Canvas, Color, Polygon, box, ellipse, shade, stroke

Painter = Callable[[Canvas, random.Random], None]


def _around(rng: random.Random, color: Color, spread: float = 0.05) -> Color:
    return shade(color, rng.uniform(1 - spread, 1 + spread))


def _meadow(canvas: Canvas, rng: random.Random) -> None:
    horizon = rng.uniform(26, 34)
    canvas.fill(box(0, 0, 64, 64), _around(rng, (150, 208, 246)))
    for _ in range(2):
        x, y = rng.uniform(4, 60), rng.uniform(4, 16)
        for dx, radius in ((-4, 3), (0, 4), (4, 3)):
            canvas.fill(ellipse(x + dx, y, radius + 1, radius * 0.8), (240, 248, 252))
    grass = _around(rng, (116, 196, 84))
    canvas.fill(box(0, horizon, 64, 64), grass)
    for _ in range(26):
        x, y = rng.uniform(0, 64), rng.uniform(horizon + 3, 64)
        canvas.fill([(x - 1, y), (x + rng.uniform(-1, 1), y - 4), (x + 1, y)], shade(grass, 0.78))
    for _ in range(5):
        x, y = rng.uniform(2, 62), rng.uniform(horizon + 4, 62)
        canvas.fill(ellipse(x, y, 1.3, 1.3, 10), (250, 244, 250))


def _beach(canvas: Canvas, rng: random.Random) -> None:
    sea = rng.uniform(18, 24)
    shore = sea + rng.uniform(11, 15)
    canvas.fill(box(0, 0, 64, 64), _around(rng, (190, 232, 250)))
    canvas.fill(ellipse(rng.uniform(8, 56), 8, 5, 5), (255, 240, 150))
    water = _around(rng, (62, 158, 206))
    canvas.fill(box(0, sea, 64, 64), water)
    for _ in range(7):
        x, y = rng.uniform(0, 60), rng.uniform(sea + 2, shore - 2)
        canvas.fill(box(x, y, x + rng.uniform(4, 9), y + 1), shade(water, 1.3))
    sand = _around(rng, (240, 218, 156), 0.03)
    canvas.fill(box(0, shore, 64, 64), sand)
    for _ in range(34):
        x, y = rng.uniform(0, 64), rng.uniform(shore + 2, 64)
        canvas.fill(ellipse(x, y, 0.8, 0.8, 8), shade(sand, 0.82))


def _night_sky(canvas: Canvas, rng: random.Random) -> None:
    for band in range(8):
        canvas.fill(
            box(0, 8 * band, 64, 8 * band + 8), (16 + 3 * band, 18 + 3 * band, 58 + 5 * band)
        )
    x, y = rng.uniform(6, 58), rng.uniform(6, 12)
    canvas.fill(ellipse(x, y, 5, 5), (250, 244, 205))
    canvas.fill(ellipse(x + 2.4, y - 1, 4.2, 4.2), (20, 22, 64))
    for _ in range(30):
        size = rng.choice((0.5, 0.7, 1.0))
        canvas.fill(ellipse(rng.uniform(0, 64), rng.uniform(0, 56), size, size, 8), (244, 244, 226))
    hill: Polygon = [(0, rng.uniform(52, 58)), (rng.uniform(20, 44), 50), (64, rng.uniform(52, 58))]
    canvas.fill([*hill, (64, 64), (0, 64)], (14, 26, 44))


def _snow(canvas: Canvas, rng: random.Random) -> None:
    canvas.fill(box(0, 0, 64, 64), _around(rng, (176, 192, 218)))
    horizon = rng.uniform(30, 37)
    for _ in range(3):
        x = rng.uniform(2, 62)
        for part in range(3):
            y = horizon - 13 + 4.5 * part
            canvas.fill([(x, y), (x - 3 - part, y + 6), (x + 3 + part, y + 6)], (84, 124, 124))
    canvas.fill(box(0, horizon, 64, 64), (240, 244, 250))
    for _ in range(3):
        x, y = rng.uniform(0, 64), rng.uniform(horizon + 6, 64)
        canvas.fill(ellipse(x, y, rng.uniform(8, 14), 2), (218, 228, 242))
    for _ in range(28):
        canvas.fill(ellipse(rng.uniform(0, 64), rng.uniform(0, 64), 0.9, 0.9, 8), (252, 253, 255))


def _brick_wall(canvas: Canvas, rng: random.Random) -> None:
    canvas.fill(box(0, 0, 64, 64), (206, 188, 172))
    top, shift = rng.uniform(-6, 0), rng.uniform(0, 12)
    row = 0
    while top + 7 * row < 64:
        y = top + 7 * row
        x = -24 + shift + (6 if row % 2 else 0)
        while x < 64:
            canvas.fill(box(x + 0.6, y + 0.6, x + 11.4, y + 6.4), _around(rng, (168, 84, 62), 0.1))
            x += 12
        row += 1


def _underwater(canvas: Canvas, rng: random.Random) -> None:
    for band in range(8):
        water = (16 + 2 * (7 - band), 92 + 8 * (7 - band), 122 + 9 * (7 - band))
        canvas.fill(box(0, 8 * band, 64, 8 * band + 8), water)
    canvas.fill([(0, 57), (30, 55), (64, 58), (64, 64), (0, 64)], (150, 140, 104))
    for _ in range(4):
        x = rng.uniform(2, 62)
        sway = rng.uniform(2, 3.5)
        weed = [(x, 60), (x + sway, 54), (x - sway, 48), (x + sway, 43)]
        for part in stroke(weed, 2):
            canvas.fill(part, (36, 128, 96))
    for _ in range(12):
        x, y, radius = rng.uniform(0, 64), rng.uniform(0, 52), rng.uniform(1, 2)
        canvas.fill(ellipse(x, y, radius, radius, 14), (166, 226, 238))
        canvas.fill(ellipse(x, y, radius - 0.7, radius - 0.7, 14), (60, 150, 182))


def _city(canvas: Canvas, rng: random.Random) -> None:
    canvas.fill(box(0, 0, 64, 64), _around(rng, (246, 202, 168)))
    canvas.fill(box(0, 0, 64, 14), _around(rng, (232, 178, 172)))
    x = rng.uniform(-6, 0)
    while x < 64:
        width, top = rng.uniform(9, 14), rng.uniform(8, 28)
        tower = _around(rng, (104, 104, 128), 0.12)
        canvas.fill(box(x, top, x + width, 64), tower)
        for row in range(9):
            for column in range(int(width // 4)):
                lit = (252, 226, 132) if rng.random() < 0.6 else shade(tower, 0.75)
                left, high = x + 1.5 + 4 * column, top + 2.5 + 5 * row
                canvas.fill(box(left, high, left + 2, high + 2.6), lit)
        x += width + rng.uniform(0, 1.5)
    canvas.fill(box(0, 56, 64, 64), (78, 76, 88))
    for dash in range(5):
        canvas.fill(box(3 + 13 * dash, 59.5, 10 + 13 * dash, 60.7), (232, 232, 222))


def _tiles(canvas: Canvas, rng: random.Random) -> None:
    shift_x, shift_y = rng.uniform(0, 16), rng.uniform(0, 16)
    for row in range(-2, 9):
        for column in range(-2, 9):
            tile = (238, 196, 208) if (row + column) % 2 else (252, 240, 232)
            x, y = 8 * column + shift_x - 8, 8 * row + shift_y - 8
            canvas.fill(box(x, y, x + 8, y + 8), _around(rng, tile, 0.02))


BACKGROUNDS: dict[str, Painter] = {
    "meadow": _meadow,
    "beach": _beach,
    "night sky": _night_sky,
    "snow": _snow,
    "brick wall": _brick_wall,
    "underwater": _underwater,
    "city": _city,
    "tiles": _tiles,
}
"""Background -> what paints it."""
