"""Paint a picture's background over, so that image similarity looks at the subject alone.

The paper masks the background and doesn't say how. Here CLIPSeg finds the subject by its class
name (Lueddecke and Ecker 2022), so training and drawn pictures are masked the same way.
"""

from __future__ import annotations

import torch
from PIL import Image

from tlora_cli.photos.masks.segmenter import THRESHOLD, Segmenter

GRAY = (127, 127, 127)
"""The color that the background becomes: near zero after the encoders' normalization."""


def load_segmenter(checkpoint: str, device: torch.device) -> Segmenter:
    """Return what finds the subject; a UserError tells of a checkpoint that can't be had."""
    return Segmenter(checkpoint, device, "pass --mask none")


def masked(segmenter: Segmenter, picture: Image.Image, word: str) -> Image.Image:
    """Return the picture with its background gray; whole, if nothing is found in it."""
    found = segmenter.probabilities(picture, word) >= THRESHOLD
    return paint_over(picture, found) if found.any() else picture


def paint_over(picture: Image.Image, subject: torch.Tensor) -> Image.Image:
    """Return the picture, gray wherever `subject` (H, W) is False."""
    mask = Image.fromarray((subject * 255).byte().numpy(), "L")
    return Image.composite(picture.convert("RGB"), Image.new("RGB", picture.size, GRAY), mask)
