"""A picture that shows a mask: its subject in color with an outline, the rest dark and gray."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

SIDE = 1024
"""Longest side of an overlay in pixels."""
LIGHT = 0.35
"""Brightness of the background."""


def overlay(photo: Image.Image, mask: Image.Image) -> Image.Image:
    """Return the overlay of a mask (L) on its photo (RGB), of at most `SIDE` pixels."""
    size = _within(photo.size)
    shown = np.asarray(photo.resize(size, Image.Resampling.BOX, reducing_gap=2.0), np.float32)
    weight = np.asarray(mask.resize(size, Image.Resampling.BOX), np.float32)[..., None] / 255
    gray = shown.mean(2, keepdims=True) * LIGHT
    seen = np.round(shown * weight + gray * (1 - weight)).astype(np.uint8)
    outline = cv2.findContours(
        (weight[..., 0] >= 0.5).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )[0]
    width = max(1, max(size) // 512)
    cv2.drawContours(seen, outline, -1, (0, 0, 0), width + 2, cv2.LINE_AA)
    cv2.drawContours(seen, outline, -1, (255, 255, 255), width, cv2.LINE_AA)
    return Image.fromarray(seen)


def _within(size: tuple[int, int]) -> tuple[int, int]:
    shrink = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))
