"""A guess of where the subject is -> its outline, by the colors of both sides (GrabCut).

Rother, Kolmogorov and Blake 2004, in OpenCV's implementation: mixtures of colors of subject and
background and a cut along edges, in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tlora_cli.photos.masks.checks import SECOND
from tlora_cli.photos.masks.superpixels import Bytes, Floats

ROUNDS = 5
CERTAIN = 0.05
"""Share of the threshold under which a place is surely background."""
GAP = 0.008
"""Half of the gap under which pieces are one, in picture sides: boots hang on a body by less than a
pixel of 64, and a sun two pixels above an ear is no part of it."""
SMALL_HOLE = 0.02
"""Holes of up to this share of the subject are filled."""


@dataclass(frozen=True)
class Cut:
    """A subject that was cut out.

    Attributes:
        subject: (H, W) bool, the largest piece, and others that are a second subject (`checks`),
            with their holes filled.
        pieces: areas of all pieces in pixels, the largest first; empty if nothing was found.
    """

    subject: npt.NDArray[np.bool_]
    pieces: list[int]


def cut_out(rgb: Bytes, guess: Floats, threshold: float) -> Cut:
    """Cut the subject out.

    The same input gives the same result: OpenCV's random numbers are seeded here.

    Args:
        rgb: (H, W, 3).
        guess: (H, W) in [0, 1]: how likely the subject is there.
        threshold: of the guess, from where on the subject is more likely than not.
    """
    state = np.full(guess.shape, cv2.GC_PR_BGD, np.uint8)
    state[guess >= threshold] = cv2.GC_PR_FGD
    state[guess < threshold * CERTAIN] = cv2.GC_BGD
    state[guess > (1 + threshold) / 2] = cv2.GC_FGD
    found = (state & 1).astype(bool)
    if not found.any() or found.all():
        return Cut(found, [int(found.sum())] if found.any() else [])
    behind, front = np.zeros((1, 65)), np.zeros((1, 65))  # OpenCV keeps its mixtures there
    cv2.setRNGSeed(0)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    cv2.grabCut(bgr, state, (0, 0, 0, 0), behind, front, ROUNDS, cv2.GC_INIT_WITH_MASK)
    return _tidy((state & 1).astype(np.uint8), guess, threshold)


def threshold_of(guess: Floats) -> float:
    """Return the level that parts the values best (Otsu 1979)."""
    levels = 256
    counts = np.histogram(guess, levels, (0, 1))[0] / guess.size
    below, middles = np.cumsum(counts), (np.arange(levels) + 0.5) / levels
    mean = np.cumsum(counts * middles)
    inside = (below > 0) & (below < 1)
    between = np.zeros(levels)
    between[inside] = (mean[-1] * below - mean)[inside] ** 2 / (below * (1 - below))[inside]
    return float(between.argmax() + 1) / levels


def _tidy(found: Bytes, guess: Floats, threshold: float) -> Cut:
    """Keep what is large, and fill its holes where the guess says subject, or small ones."""
    radius = max(1, round(GAP * np.sqrt(found.size)))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    near = cv2.connectedComponents(cv2.dilate(found, disk))[1]
    areas = np.bincount((near * found).ravel(), minlength=2)[1:]
    if not areas.any():
        return Cut(found.astype(bool), [])
    large = 1 + np.flatnonzero(areas >= SECOND * areas.max())
    subject = np.isin(near * found, large)
    count, rest = cv2.connectedComponents((~subject).astype(np.uint8), connectivity=4)
    outside = set(np.concatenate([rest[0], rest[-1], rest[:, 0], rest[:, -1]]).tolist())
    for number in set(range(1, count)) - outside:
        hole = rest == number
        if hole.sum() < SMALL_HOLE * subject.sum() or guess[hole].mean() > threshold / 2:
            subject |= hole
    return Cut(subject, sorted((int(area) for area in areas if area), reverse=True))
