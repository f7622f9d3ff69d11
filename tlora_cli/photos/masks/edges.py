"""A small hard mask -> a mask of the photo's full size with soft edges along the photo's own.

Fast guided filter (He and Sun 2015; He, Sun and Tang 2010): near the outline, the mask is a linear
function of the photo's color, fitted at the small size and evaluated at the full one.
"""

from __future__ import annotations

import cv2
import numpy as np

from tlora_cli.photos.masks.superpixels import Bytes, Floats

BAND = 0.008
"""Half of the width within which the mask may differ from the small one, in picture sides."""
SMOOTH = 1e-4
"""Variance of color that counts as no edge, colors from 0 to 1 (the filter's epsilon)."""
STEEPNESS = 2.0
"""The fitted edge is this much steeper: a least-squares fit is always too soft."""
STRIP = 4_000_000
"""Pixels of the photo that are filtered at once."""


def refined(photo: Bytes, small: Bytes, subject: np.ndarray) -> Bytes:
    """Return the mask of the photo, (H, W), 0 to 255.

    Args:
        photo: (H, W, 3) RGB.
        small: (h, w, 3), the photo as the subject was found on it.
        subject: (h, w) bool.
    """
    height, width = photo.shape[:2]
    rows, columns = subject.shape
    hard = subject.astype(np.float32)
    radius = max(1, round(BAND * np.sqrt(hard.size)))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    # What the filter may say at most and at least; both are the mask itself away from its outline.
    bounds = np.dstack([cv2.erode(hard, disk, borderValue=1.0), cv2.dilate(hard, disk)])
    slopes = _fit(small.astype(np.float32) / 255, hard, radius)
    result = np.empty((height, width), np.uint8)
    scale = np.array([columns / width, rows / height])
    lines = max(1, STRIP // width)
    for top in range(0, height, lines):
        strip = photo[top : top + lines].astype(np.float32) / 255
        shift = 0.5 * scale - 0.5 + [0, top * scale[1]]
        placing = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
        line, limits = (
            cv2.warpAffine(
                values,
                placing,
                (width, len(strip)),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            for values in (slopes, bounds)
        )
        fitted = (line[..., :3] * strip).sum(2) + line[..., 3]
        steep = np.clip((fitted - 0.5) * STEEPNESS + 0.5, limits[..., 0], limits[..., 1])
        result[top : top + lines] = np.round(np.clip(steep, 0, 1) * 255).astype(np.uint8)
    return result


def _fit(guide: Floats, mask: Floats, radius: int) -> Floats:
    """Return slopes and offset of mask = slopes . color + offset around each place, (h, w, 4)."""

    def mean(values: Floats) -> Floats:
        blurred = cv2.blur(values, (2 * radius + 1, 2 * radius + 1))
        return np.asarray(blurred, np.float32)

    color, level = mean(guide), mean(mask)
    squares = (guide[..., :, None] * guide[..., None, :]).reshape(*mask.shape, 9)
    spread = np.dstack([mean(squares[..., one]) for one in range(9)]).reshape(*mask.shape, 3, 3)
    spread -= color[..., :, None] * color[..., None, :]
    together = mean(guide * mask[..., None]) - color * level[..., None]
    slopes = np.linalg.solve(spread + SMOOTH * np.eye(3, dtype=np.float32), together[..., None])
    slopes = slopes[..., 0].astype(np.float32)
    offset = level - (slopes * color).sum(2)
    return mean(np.dstack([slopes, offset]).astype(np.float32))
