"""Metrics on features of length one. Pure functions; `encoders.py` makes the features."""

from __future__ import annotations

import torch
from torch import Tensor

COPIED = 0.95
"""Cosine to a training picture from which on one that should show something else counts as
copied."""


def image_similarity(generated: Tensor, real: Tensor) -> float:
    """Return IS: the mean cosine over all pairs of a generated and a real picture.

    Args:
        generated: (N, D) features of pictures of the base prompt.
        real: (M, D) features of the training pictures.
    """
    return float((generated @ real.T).mean())


def text_similarity(generated: Tensor, texts: Tensor) -> float:
    """Return TS: the mean cosine of each picture and its prompt; not multiplied by 2.5.

    Args:
        generated: (N, D) features of pictures.
        texts: (N, D) features of their prompts, in the same order.
    """
    return float((generated * texts).sum(1).mean())


def diversity(features: Tensor) -> float:
    """Return the Vendi score: exp of the entropy of the eigenvalues of the cosines over N.

    From 1 (all pictures the same) to N (all orthogonal). Friedman and Dieng 2022.

    Args:
        features: (N, D).
    """
    cosines = (features @ features.T).double() / len(features)
    shares = torch.linalg.eigvalsh(cosines).clamp(min=0)
    return float(torch.special.entr(shares).sum().exp())


def copying(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """Return the mean cosine to the nearest training picture, and the share that counts as copied.

    Args:
        generated: (N, D) features of pictures of prompts that ask for something else.
        real: (M, D) features of the training pictures.
    """
    nearest = (generated @ real.T).max(1).values
    return float(nearest.mean()), float((nearest >= COPIED).float().mean())


def drift(adapted: Tensor, base: Tensor) -> float:
    """Return how far the adapter moves pictures that don't ask for the concept: 1 - mean cosine.

    Args:
        adapted: (N, D) features of concept-free prompts with the adapter.
        base: (N, D) the same prompts and seeds without it.
    """
    return 1 - float((adapted * base).sum(1).mean())
