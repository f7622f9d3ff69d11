"""Photo -> the mask of its subject: its alpha channel, or what a model or GrabCut finds.

GrabCut starts from what stands out from the photo's border, or from the mean of that and of where a
base model sees the subject.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.pictures import read_alpha, read_picture
from tlora_cli.photos.masks.checks import doubt
from tlora_cli.photos.masks.edges import refined
from tlora_cli.photos.masks.grabcut import cut_out, threshold_of
from tlora_cli.photos.masks.outline import edge_share
from tlora_cli.photos.masks.saliency import standing_out
from tlora_cli.photos.masks.segmenter import CHECKPOINT, THRESHOLD, Segmenter
from tlora_cli.photos.masks.superpixels import Bytes, Floats

ALPHA = "alpha channel"
"""The name for what found a mask that comes with its photo."""
SIDE = 512
"""The subject is found on the photo as large as a square of this side, in pixels."""
MOST_ENLARGED = 4.0
"""Small pictures are enlarged up to this: an outline can't be finer than a pixel."""
SMALLEST = 16
"""Least side, in pixels, of a photo in which a subject can be found."""

QUANTILES = 0.02, 0.98
"""Quantiles of what a base sees that become 0 and 1, so that a single bright place says little."""

Guess = Callable[[Bytes], tuple[Floats, float]]
"""Small photo (H, W, 3) -> how likely the subject is at each place, and from where on it is."""


@dataclass(frozen=True)
class Seen:
    """The places of a photo where a base model sees its subject.

    Attributes:
        by: name of the base.
        places: (h, w) of any size and scale, larger where the subject is.
    """

    by: str
    places: Floats


@dataclass(frozen=True)
class FoundMask:
    """A mask that was found.

    Attributes:
        photo: upright, RGB.
        mask: of the photo's size, L, white on the subject.
        by: what found it, e.g. `GrabCut` or `GrabCut and toy-sdxl`.
        doubt: what is wrong with it (`checks.doubt`), or None.
    """

    photo: Image.Image
    mask: Image.Image
    by: str
    doubt: str | None

    @property
    def coverage(self) -> float:
        """Share of the photo that it covers."""
        return coverage_of(self.mask)


class MaskFinder:
    """Finds subjects.

    Args:
        model: Hub id or folder of a CLIPSeg model (`segmenter.CHECKPOINT` is one); None: what
            stands out from the photo's border is the subject.
        word: what the photo shows, e.g. `dog`; for the model.
    """

    def __init__(self, model: str | None = None, word: str = "") -> None:
        self.model, self.word = model, word
        self._segmenter: Segmenter | None = None

    def find(self, path: Path, where: str, seen: Seen | None = None) -> FoundMask:
        """Return the mask of a photo; the caller looks at its `doubt`.

        Args:
            path: the photo.
            where: what names it, for messages.
            seen: where a base sees the subject, if one was asked; a model needs none.

        Raises:
            UserError: if the photo can't be read or is too small, or the model can't be had.
        """
        photo = read_picture(path, where, "RGB")
        alpha = read_alpha(path, where)
        if alpha is not None:
            return FoundMask(photo, alpha, ALPHA, doubt(coverage_of(alpha)))
        if min(photo.size) < SMALLEST:
            raise UserError(
                f"{path} is {photo.width} x {photo.height} pixels, too small to find a subject in",
                where=where,
                do=f"take a photo of at least {SMALLEST} pixels each way",
            )
        guess: Guess = _by_contrast
        by = "GrabCut"
        if self.model:
            guess, by = self._by_model, self.model
        elif seen is not None:
            guess, by = functools.partial(_by_both, seen.places), f"GrabCut and {seen.by}"
        mask, wrong = find_subject(photo, guess)
        return FoundMask(photo, mask, by, wrong)

    def _by_model(self, rgb: Bytes) -> tuple[Floats, float]:
        import torch

        if self._segmenter is None:
            assert self.model
            otherwise = "leave the model out: GrabCut needs none"
            self._segmenter = Segmenter(self.model, torch.device("cpu"), otherwise)
        found = self._segmenter.probabilities(Image.fromarray(rgb), self.word)
        return found.numpy(), THRESHOLD


def needs_looking(path: Path, where: str) -> bool:
    """Say whether a photo has no alpha channel that is its mask, and isn't refused as too small.

    Raises:
        UserError: if it can't be read.
    """
    if read_alpha(path, where) is not None:
        return False
    return min(read_picture(path, where, "RGB").size) >= SMALLEST


def find_subject(photo: Image.Image, guess: Guess) -> tuple[Image.Image, str | None]:
    """Return the mask, L, of the photo's size, and what is wrong with it (`checks.doubt`)."""
    full = np.asarray(photo)
    scale = min(SIDE / np.sqrt(photo.width * photo.height), MOST_ENLARGED)
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = np.asarray(cv2.resize(full, size, interpolation=how), np.uint8)
    likely, threshold = guess(small)
    cut = cut_out(small, likely, threshold)
    mask = Image.fromarray(refined(full, small, cut.subject))
    return mask, doubt(coverage_of(mask), cut.pieces, edge_share(small, cut.subject))


def coverage_of(mask: Image.Image) -> float:
    """Return the share of a mask (L) that is white."""
    counts = np.asarray(mask.histogram(), np.float64)
    return float(counts @ np.arange(256) / 255 / counts.sum())


def _by_contrast(rgb: Bytes) -> tuple[Floats, float]:
    likely = standing_out(rgb)
    return likely, threshold_of(likely)


def _by_both(places: Floats, rgb: Bytes) -> tuple[Floats, float]:
    """Join what stands out with what a base sees: one finds what the other misses."""
    size = rgb.shape[1], rgb.shape[0]
    larger = np.asarray(cv2.resize(places.astype(np.float32), size, interpolation=cv2.INTER_CUBIC))
    low, high = np.quantile(larger, QUANTILES)
    scaled = np.clip((larger - low) / max(high - low, 1e-9), 0, 1)
    likely = ((standing_out(rgb) + scaled) / 2).astype(np.float32)
    return likely, threshold_of(likely)


__all__ = [
    "ALPHA",
    "CHECKPOINT",
    "FoundMask",
    "MaskFinder",
    "Seen",
    "coverage_of",
    "find_subject",
    "needs_looking",
]
