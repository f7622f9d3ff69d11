#!/usr/bin/env python3
"""Draw the demo's picture: a toy dog on a wooden table, and the mask of the dog.

    python scripts/draw_photo.py [OUT]

Writes OUT/photo.jpg and OUT/photo_mask.png, 512 x 512, by default into assets/; takes a minute. The
scene is made of rounded solids, given as signed distances (negative inside), and found by sphere
tracing. It is drawn, not photographed, so that it may be shipped.

Coordinates are in decimeters: x to the right, y up, z towards the camera; the table is y = 0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

Array = NDArray[np.float32]

SIDE = 512
OVERSAMPLING = 2
BLUR = ImageFilter.GaussianBlur(4 * OVERSAMPLING)
EYE = np.array([1.5, 2.1, 5.6], np.float32)
TARGET = np.array([0.02, 0.93, 0.0], np.float32)
FOCAL = 3.7
LIGHT = np.array([0.62, 0.68, 0.42], np.float32)
LIGHT /= np.linalg.norm(LIGHT)
CENTER, RADIUS = np.array([0.0, 0.95, 0.1], np.float32), 1.5
"""A ball around the dog; rays that miss it need no tracing."""

TAN, CREAM, BROWN = (0.66, 0.36, 0.14), (0.93, 0.84, 0.68), (0.22, 0.10, 0.05)
RED, GOLD, BLACK = (0.75, 0.05, 0.06), (0.95, 0.68, 0.15), (0.015, 0.013, 0.013)


# --- solids: points (N, 3) -> signed distances (N,) -----------------------------------------------


def ellipsoid(points: Array, center: Sequence[float], radii: Sequence[float]) -> Array:
    scaled = (points - np.float32(center)) / np.float32(radii)
    length = np.linalg.norm(scaled, axis=1)
    steepness = np.linalg.norm(scaled / np.float32(radii), axis=1) + 1e-6
    return length * (length - 1) / steepness


def capsule(
    points: Array, start: Sequence[float], end: Sequence[float], thick: float, thin: float
) -> Array:
    axis = np.float32(end) - np.float32(start)
    along = np.clip((points - np.float32(start)) @ axis / (axis @ axis), 0, 1)
    nearest = np.float32(start) + along[:, None] * axis
    return np.linalg.norm(points - nearest, axis=1) - (thick + (thin - thick) * along)


def ring(points: Array, center: Sequence[float], tilt: float, radius: float, width: float) -> Array:
    """A torus around an axis in the y-z plane, `tilt` radians from y towards z."""
    axis = np.float32([0, np.cos(tilt), np.sin(tilt)])
    offset = points - np.float32(center)
    height = offset @ axis
    out = np.linalg.norm(offset - height[:, None] * axis, axis=1) - radius
    return np.hypot(out, height * 0.75) - width


def blend(first: Array, second: Array, width: float) -> Array:
    """Join two solids with a fillet."""
    share = np.clip(0.5 + 0.5 * (second - first) / width, 0, 1)
    return second + (first - second) * share - width * share * (1 - share)


def mirrored(points: Array) -> Array:
    """Fold the right half onto the left: pairs of legs, ears and eyes are drawn once."""
    return np.stack([np.abs(points[:, 0]), points[:, 1], points[:, 2]], axis=1)


def dog_parts(points: Array) -> tuple[list[Array], list[tuple[float, float, float]]]:
    """Return the distances to the parts of a sitting dog that faces +z, and their colors."""
    both = mirrored(points)
    body = capsule(points, (0, 0.55, -0.28), (0, 1.0, 0.02), 0.47, 0.34)
    body = blend(body, capsule(both, (0.22, 0.85, 0.2), (0.25, 0.15, 0.42), 0.17, 0.13), 0.12)
    body = blend(body, ellipsoid(both, (0.4, 0.35, -0.12), (0.22, 0.36, 0.4)), 0.1)
    body = blend(body, capsule(points, (0, 0.25, -0.62), (0.42, 0.62, -0.98), 0.1, 0.07), 0.08)
    head = ellipsoid(points, (0, 1.55, 0.2), (0.45, 0.41, 0.42))
    body = blend(body, head, 0.08)
    chest = ellipsoid(points, (0, 0.78, 0.16), (0.2, 0.34, 0.27))
    paws = ellipsoid(both, (0.26, 0.1, 0.5), (0.16, 0.11, 0.21))
    paws = np.minimum(paws, ellipsoid(both, (0.46, 0.1, 0.3), (0.16, 0.11, 0.26)))
    muzzle = blend(ellipsoid(points, (0, 1.43, 0.56), (0.23, 0.18, 0.2)), chest, 0.01)
    ears = capsule(both, (0.34, 1.78, 0.14), (0.54, 1.36, 0.24), 0.1, 0.16)
    ears = np.maximum(ears, np.abs((both - np.float32([0.42, 1.5, 0.2])) @ EAR_AXIS) - 0.08)
    collar = ring(points, (0, 1.19, 0.1), 0.28, 0.34, 0.055)
    tag = ellipsoid(points, (0, 1.0, 0.53), (0.1, 0.1, 0.035))
    nose = ellipsoid(points, (0, 1.53, 0.74), (0.085, 0.06, 0.055))
    eyes = ellipsoid(both, (0.18, 1.64, 0.545), (0.062, 0.07, 0.05))
    patch = np.maximum(ellipsoid(points, (-0.22, 1.66, 0.5), (0.2, 0.2, 0.3)), head - 0.006)
    parts = [body, muzzle, paws, ears, collar, tag, nose, eyes, patch]
    return parts, [TAN, CREAM, CREAM, BROWN, RED, GOLD, BLACK, BLACK, BROWN]


EAR_AXIS = np.float32([0.82, 0.25, 0.35])


def dog(points: Array) -> Array:
    return np.minimum.reduce(dog_parts(points)[0])


# --- light ----------------------------------------------------------------------------------------


def trace(origins: Array, directions: Array) -> Array:
    """Return the distances along unit rays to the dog; infinite where they miss it."""
    toward = (CENTER - origins) * np.ones_like(directions)
    middle = np.sum(toward * directions, axis=1)
    gap = RADIUS**2 - (np.sum(toward**2, axis=1) - middle**2)
    found = np.full(len(directions), np.inf, np.float32)
    live = np.flatnonzero((gap > 0) & (middle + np.sqrt(np.maximum(gap, 0)) > 0))
    reach = np.sqrt(gap[live])
    far, way = middle[live] + reach, np.maximum(middle[live] - reach, 0.01)
    starts = np.broadcast_to(origins, directions.shape)
    for _ in range(110):
        distance = dog(starts[live] + way[:, None] * directions[live])
        hit = distance < 0.0012
        found[live[hit]] = way[hit]
        way = way + 0.8 * distance
        keep = ~hit & (way < far)
        live, way, far = live[keep], way[keep], far[keep]
        if not len(live):
            break
    found[live] = way  # still creeping along a crease
    return found


def sunlight(points: Array) -> Array:
    """Return how much of a broad lamp is seen from each point, 0 to 1."""
    seen = np.ones(len(points), np.float32)
    way = np.full(len(points), 0.04, np.float32)
    for _ in range(36):
        distance = dog(points + way[:, None] * LIGHT)
        seen = np.minimum(seen, 0.5 + 4.5 * distance / way)
        way = way + np.clip(distance, 0.03, 0.2)
    seen = np.clip(seen, 0, 1)
    return seen * seen * (3 - 2 * seen)


def openness(points: Array, normals: Array) -> Array:
    """Return how open the surroundings of each point are, 0 to 1."""
    closed = np.zeros(len(points), np.float32)
    for step in (0.05, 0.14, 0.28, 0.45):
        nearby = points + step * normals
        room = np.minimum(dog(nearby), nearby[:, 1])
        closed += np.clip(step - room, 0, None) * 0.45 / step
    return np.clip(1 - 0.6 * closed, 0.1, 1)


def normals_of(points: Array) -> Array:
    shifts = np.eye(3, dtype=np.float32) * 0.002
    slopes = [dog(points + shift) - dog(points - shift) for shift in shifts]
    normals = np.stack(slopes, axis=1)
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9)


# --- surfaces -------------------------------------------------------------------------------------


def noise(points: Array, seed: int) -> Array:
    """Return smooth random values in [0, 1] that vary once per unit."""
    table = np.random.default_rng(seed).random((32, 32, 32), np.float32)
    cell = np.floor(points).astype(np.int64)
    part = (points - cell).astype(np.float32)
    part = part * part * (3 - 2 * part)
    total = np.zeros(len(points), np.float32)
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, part, 1 - part), axis=1)
        x, y, z = ((cell + corner) % 32).T
        total += weight * table[x, y, z]
    return total


def wood(points: Array) -> Array:
    """Return the table's color: planks along x with grain."""
    plank = np.floor(points[:, 2] / 1.1 + 40)
    tone = np.random.default_rng(5).random(100, np.float32)[plank.astype(np.int64) % 100]
    along = np.stack([points[:, 0] * 0.7 + 9 * plank, points[:, 2] * 9, plank], axis=1)
    rings = 0.5 + 0.5 * np.sin(7 * noise(along * np.float32([1, 0.28, 1]), 1) + 2.2 * along[:, 1])
    grain = 0.55 * rings + 0.45 * noise(along * np.float32([2, 5, 1]), 2)
    gap = np.abs((points[:, 2] / 1.1) % 1 - 0.5) > 0.49
    shade = (0.72 + 0.2 * tone + 0.2 * (grain - 0.5)) * np.where(gap, 0.45, 1)
    return shade[:, None] * np.float32([0.62, 0.40, 0.23])


def wall(directions: Array) -> Array:
    """Return the blurred background: a gray-green wall with out-of-focus lights."""
    height = np.clip(directions[:, 1] * 2 + 0.7, 0, 1)[:, None]
    color = (1 - height) * np.float32([0.10, 0.13, 0.12]) + height * np.float32([0.20, 0.30, 0.31])
    spots = np.random.default_rng(11)
    for _ in range(14):
        place = np.float32([spots.uniform(-0.65, 0.15), spots.uniform(-0.2, 0.22)])
        size, warmth = spots.uniform(0.015, 0.035), spots.uniform(0.03, 0.14)
        away = np.hypot(directions[:, 0] - place[0], directions[:, 1] - place[1])
        disk = np.clip((size - away) / 0.008, 0, 1)[:, None]
        color = color + disk * warmth * np.float32([1.0, 0.82, 0.5])
    return color


def shade_dog(points: Array, directions: Array) -> Array:
    parts, palette = dog_parts(points)
    index = np.argmin(np.stack(parts), axis=0)
    color = np.float32(palette)[index]
    plush = np.isin(index, (0, 1, 2, 3, 8))
    fur = noise(points * np.float32([50, 30, 50]), 3) * 0.6 + noise(points * 100, 4) * 0.4
    color = color * np.where(plush, 0.62 + 0.76 * fur, 1)[:, None]
    normals = normals_of(points)
    bumps = np.stack([noise(points * 65, seed) - 0.5 for seed in (6, 7, 8)], axis=1)
    normals = normals + np.where(plush, 0.55, 0.0)[:, None] * bumps
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    facing = np.clip((normals @ LIGHT + 0.15) / 1.15, 0, None) * sunlight(points + 0.01 * normals)
    ambient = openness(points, normals) * (0.32 + 0.2 * normals[:, 1])
    rim = np.clip(1 + np.sum(normals * directions, axis=1), 0, 1) ** 3
    half = LIGHT - directions
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    glint = np.clip(np.sum(normals * half, axis=1), 0, 1)
    gloss = np.select([plush, index == 5, index == 4], [0.0, 1.2, 0.15], 0.9)
    light = facing[:, None] * np.float32([1.28, 1.16, 0.98]) + ambient[:, None] * np.float32(
        [0.85, 0.95, 1.1]
    )
    sheen = np.where(plush, 0.22, 0.05) * rim * (0.3 + facing)
    return color * light + sheen[:, None] + (gloss * glint**60)[:, None]


def shade_table(points: Array, directions: Array) -> Array:
    up = np.broadcast_to(np.float32([0, 1, 0]), points.shape)
    lit, open_ = np.ones(len(points), np.float32), np.ones(len(points), np.float32)
    near = np.linalg.norm(points - CENTER, axis=1) < 4
    lit[near], open_[near] = sunlight(points[near]), openness(points[near], up[near])
    light = (LIGHT[1] * lit)[:, None] * np.float32([1.28, 1.16, 0.98]) + (0.42 * open_)[:, None]
    mirror = directions * np.float32([1, -1, 1])
    gloss = np.clip(1 + directions[:, 1], 0, 1)[:, None] ** 4 * 0.35
    return wood(points) * light + gloss * wall(mirror) * open_[:, None]


# --- picture --------------------------------------------------------------------------------------


def render(side: int) -> tuple[Array, Array]:
    """Return colors (side, side, 3), linear, and the dog's mask (side, side)."""
    forward = (TARGET - EYE) / np.linalg.norm(TARGET - EYE)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    rows, columns = np.mgrid[0:side, 0:side].reshape(2, -1).astype(np.float32)
    x, y = (2 * columns + 1) / side - 1, 1 - (2 * rows + 1) / side
    rays = x[:, None] * right + y[:, None] * up + FOCAL * forward
    rays = (rays / np.linalg.norm(rays, axis=1, keepdims=True)).astype(np.float32)
    to_dog = trace(EYE[None], rays)
    with np.errstate(divide="ignore"):
        to_table = np.where(rays[:, 1] < 0, -EYE[1] / rays[:, 1], np.inf)
    color = wall(rays)
    on_dog = to_dog < to_table
    on_table = ~on_dog & (to_table < 14)
    color[on_dog] = shade_dog(EYE + to_dog[on_dog, None] * rays[on_dog], rays[on_dog])
    floor = shade_table(EYE + to_table[on_table, None] * rays[on_table], rays[on_table])
    haze = np.clip((to_table[on_table] - 9) / 5, 0, 1)[:, None]
    color[on_table] = floor * (1 - haze) + color[on_table] * haze
    color *= (1 - 0.35 * (x**2 + y**2) / 2)[:, None]
    return color.reshape(side, side, 3), on_dog.reshape(side, side).astype(np.float32)


def develop(color: Array, mask: Array) -> tuple[Image.Image, Image.Image]:
    """Blur the background, reduce, and turn linear light into a picture with some film grain."""
    toned = color * (1 + color / 4) / (1 + color * 0.45)
    levels = 255 * np.clip(toned, 0, 1) ** (1 / 2.2)
    picture = Image.fromarray(levels.astype(np.uint8))
    subject = Image.fromarray((255 * mask).astype(np.uint8))
    behind = Image.composite(Image.new("RGB", picture.size), picture, subject)
    share = np.asarray(ImageChops.invert(subject).filter(BLUR), np.float32)[:, :, None]
    filled = np.asarray(behind.filter(BLUR), np.float32) * 255 / np.maximum(share, 1)
    blurred = Image.fromarray(np.clip(filled, 0, 255).astype(np.uint8))  # without the dog's colors
    height = np.linspace(0, 1, len(mask), dtype=np.float32)[:, None]
    distance = np.clip((0.62 - height) / 0.3, 0, 1) * np.ones_like(mask)
    focus = Image.fromarray((255 * np.maximum(1 - distance, mask)).astype(np.uint8))
    picture = Image.composite(picture, blurred, focus.filter(ImageFilter.GaussianBlur(1)))
    picture = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    subject = subject.resize((SIDE, SIDE), Image.Resampling.BOX)
    grain = np.random.default_rng(0).normal(0, 2.2, (SIDE, SIDE, 1))
    grainy = np.clip(np.asarray(picture) + grain, 0, 255)
    return Image.fromarray(grainy.round().astype(np.uint8)), subject


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draw the demo's picture and its mask.")
    default = Path(__file__).resolve().parent.parent / "assets"
    parser.add_argument("out", type=Path, nargs="?", default=default, help="folder (assets/)")
    out = parser.parse_args(arguments).out
    picture, mask = develop(*render(SIDE * OVERSAMPLING))
    out.mkdir(parents=True, exist_ok=True)
    picture.save(out / "photo.jpg", quality=90)
    mask.save(out / "photo_mask.png", optimize=True)
    for name in ("photo.jpg", "photo_mask.png"):
        print(f"wrote {out / name} ({(out / name).stat().st_size / 1000:.0f} kB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
