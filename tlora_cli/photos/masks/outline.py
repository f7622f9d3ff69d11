"""Whether the outline of a mask is an edge of its photo, too."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from tlora_cli.photos.masks.superpixels import Bytes, Floats

RADIUS = 4
"""Half of the side of the square around a place of the outline, in pixels."""
VISIBLE = 6.0
"""Difference between colors, in units of Lab, from which on an edge is seen."""


def edge_share(rgb: Bytes, subject: npt.NDArray[np.bool_]) -> float:
    """Return the share of the outline on whose two sides the colors differ visibly; 1 without one.

    Args:
        rgb: (H, W, 3).
        subject: (H, W).
    """
    inside = subject.astype(np.float32)
    inner = cv2.erode(inside, np.ones((3, 3), np.uint8), borderValue=1.0)
    outline = subject & (np.asarray(inner) == 0)  # the photo's border is no outline
    if not outline.any():
        return 1.0
    lab = np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
    means = [_mean(lab, side)[outline] for side in (inside, 1 - inside)]
    return float((np.linalg.norm(means[0] - means[1], axis=1) > VISIBLE).mean())


def _mean(values: Floats, weight: Floats) -> Floats:
    """Return the mean of values (H, W, C) around each place, weighted."""
    size = 2 * RADIUS + 1, 2 * RADIUS + 1
    sums = np.asarray(cv2.blur(values * weight[..., None], size), np.float32)
    weights = np.asarray(cv2.blur(weight, size), np.float32)
    mean: Floats = sums / np.maximum(weights, 1e-6)[..., None]
    return mean
