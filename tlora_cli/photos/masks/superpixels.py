"""A picture -> small pieces of one color each (as SLIC does, Achanta et al. 2012)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.intp]

ROUNDS = 6
"""Rounds of k-means; later ones move next to nothing."""
COMPACTNESS = 12.0
"""Weight of a piece's width against colors, in units of Lab."""


def superpixels(lab: Floats, count: int) -> Labels:
    """Return the piece of each pixel, (H, W), numbered from 0 without gaps.

    k-means over color and place, where a pixel may only join the pieces of the nine cells around
    its own, so the time doesn't grow with the number of pieces.

    Args:
        lab: (H, W, 3), lightness from 0 to 100.
        count: about how many pieces.
    """
    height, width, _ = lab.shape
    step = max(2.0, float(np.sqrt(height * width / count)))
    rows, columns = max(1, round(height / step)), max(1, round(width / step))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    row = np.minimum((y * rows / height).astype(np.intp), rows - 1).ravel()
    column = np.minimum((x * columns / width).astype(np.intp), columns - 1).ravel()
    scale = COMPACTNESS / step
    points = np.dstack([lab, y * scale, x * scale]).reshape(-1, 5).astype(np.float32)
    labels = row * columns + column
    for _round in range(ROUNDS):
        sizes = np.bincount(labels, minlength=rows * columns)
        centers = sums_of(labels, points, len(sizes)) / np.maximum(sizes, 1)[:, None]
        nearest = np.full(len(points), np.inf, np.float32)
        moved = labels.copy()
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                there_row, there_column = row + down, column + right
                exists = (there_row >= 0) & (there_row < rows)
                exists &= (there_column >= 0) & (there_column < columns)
                there = np.where(exists, there_row * columns + there_column, 0)
                exists &= sizes[there] > 0
                distance = ((points - centers[there].astype(np.float32)) ** 2).sum(1)
                distance[~exists] = np.inf
                closer = distance < nearest
                nearest[closer], moved[closer] = distance[closer], there[closer]
        labels = moved
    return np.unique(labels, return_inverse=True)[1].reshape(height, width)


def sums_of(labels: Labels, values: Floats, count: int) -> Floats:
    """Return the sums of values (N, C) over pieces, (count, C)."""
    channels = [np.bincount(labels, values[:, one], count) for one in range(values.shape[1])]
    return np.stack(channels, 1)


def neighbors(labels: Labels) -> Labels:
    """Return the pairs of pieces that touch, (E, 2), each once."""
    across = np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], 1)
    down = np.stack([labels[:-1].ravel(), labels[1:].ravel()], 1)
    pairs = np.concatenate([across, down])
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], 1), axis=0)
