"""The places of a photograph that stand out from what reaches its border.

Background is what is widely connected with the border over ways of small steps in color, so a
subject that the border cuts is no background: it touches the border with a small part of its
length (robust background detection; Zhu, Liang, Wei and Sun, CVPR 2014).
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from tlora_cli.photos.masks.superpixels import (
    Bytes,
    Floats,
    Labels,
    neighbors,
    sums_of,
    superpixels,
)

SIDE = 256
"""The picture is looked at as if it were a square of this side, in pixels."""
PIECES = (200, 400, 800)
"""Finenesses whose answers are averaged: coarse ones hold a subject of many colors together, fine
ones see its thin parts."""
NEAR = 8.0
"""Difference in color, in units of Lab, over which connection fades (sigma of a Gaussian)."""
BOTTOM = 0.25
"""Weight of the lower border: people and animals stand there, or are cut off there."""
REACH = 0.4
"""Distance over which a place is compared with the background, in picture sides."""
CERTAINTY, SMOOTHNESS = 5.0, 0.1
"""Weights of knowing the background, and of pieces that touch being alike whatever their color."""


def standing_out(rgb: Bytes) -> Floats:
    """Return how much each place stands out, (H, W) in [0, 1]; all zero if nothing does.

    Args:
        rgb: (H, W, 3) uint8.
    """
    height, width = rgb.shape[:2]
    shrink = min(1.0, SIDE / np.sqrt(height * width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    lab = np.asarray(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
    maps = [_at_one_fineness(lab, pieces) for pieces in PIECES]
    averaged = np.mean(maps, 0).astype(np.float32)
    return np.asarray(cv2.resize(averaged, (width, height)), np.float32)


def _at_one_fineness(lab: Floats, pieces: int) -> Floats:
    labels = superpixels(lab, pieces)
    areas = np.bincount(labels.ravel())
    if len(areas) < 2:
        return np.zeros(labels.shape)
    colors = sums_of(labels.ravel(), lab.reshape(-1, 3), len(areas)) / areas[:, None]
    touching = neighbors(labels)
    steps = np.linalg.norm(colors[touching[:, 0]] - colors[touching[:, 1]], axis=1)
    background = _background(labels, areas, colors, touching, steps)
    contrast = _contrast(labels, areas, colors, background)
    # The smooth map that is 0 where the background is known and 1 where the contrast is.
    subject = contrast * (1 - background)
    alike = np.zeros((len(areas), len(areas)))
    alike[touching[:, 0], touching[:, 1]] = np.exp(-(steps**2) / (2 * NEAR**2)) + SMOOTHNESS
    alike += alike.T
    known = np.diag(alike.sum(1) + CERTAINTY * background + subject + 1e-9)
    smooth = _stretched(np.linalg.solve(known - alike, subject))
    return np.asarray(smooth[labels])


def _background(
    labels: Labels, areas: Labels, colors: Floats, touching: Labels, steps: Floats
) -> Floats:
    """Return the probability of being background, of each piece (eqs. 3 to 6 of the paper)."""
    count = len(areas)
    edges = (labels[0], labels[:, 0], labels[:, -1], labels[-1])
    border = np.unique(np.concatenate(edges))
    one, other = np.triu_indices(len(border), 1)
    # The border's pieces are neighbors of one another: a subject may cut the background in two.
    links = np.concatenate([touching, np.stack([border[one], border[other]], 1)])
    links = np.unique(np.sort(links, 1), axis=0)
    lengths = np.linalg.norm(colors[links[:, 0]] - colors[links[:, 1]], axis=1)
    least = np.full(count, np.inf)
    for end in (0, 1):
        np.minimum.at(least, touching[:, end], steps)
    lengths = np.maximum(lengths - least[np.isfinite(least)].mean(), 0) + 1e-6  # 0: no link
    graph = coo_matrix((lengths, (links[:, 0], links[:, 1])), shape=(count, count)).tocsr()
    connected = np.exp(-(dijkstra(graph, directed=False) ** 2) / (2 * NEAR**2))
    spanned = connected @ (areas / areas.mean())
    touched = np.zeros(count)
    side = np.sqrt(labels.size / count)
    for edge, weight in zip(edges, (1, 1, 1, BOTTOM), strict=True):
        np.add.at(touched, edge, weight / side)
    connectivity = connected @ touched / np.sqrt(spanned)
    probability: Floats = 1 - np.exp(-(connectivity**2) / 2)
    return probability


def _contrast(labels: Labels, areas: Labels, colors: Floats, background: Floats) -> Floats:
    """Return how unlike the background around it each piece is, in [0, 1]."""
    y, x = np.mgrid[0 : labels.shape[0], 0 : labels.shape[1]]
    places = sums_of(labels.ravel(), np.stack([y.ravel(), x.ravel()], 1), len(areas))
    places = places / areas[:, None] / max(labels.shape)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    unlike = np.linalg.norm(colors[:, None] - colors[None], axis=2)
    weights = np.exp(-(apart**2) / (2 * REACH**2)) * (background * areas)[None]
    return _stretched((unlike * weights).sum(1) / (weights.sum(1) + 1e-9))


def _stretched(values: Floats) -> Floats:
    """Return the values from 0 to 1; zeros if they are all alike."""
    low, high = values.min(), values.max()
    if high - low < 1e-6:
        return np.zeros_like(values)
    stretched: Floats = (values - low) / (high - low)
    return stretched
