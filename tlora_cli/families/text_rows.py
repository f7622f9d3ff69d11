"""Texts of different lengths side by side: the shorter ones are filled up, and masked.

A family whose text encoder gives each prompt its own length says the texts as `TEXT` alone; a text
that is filled up also has `MASK`. Texts of one length stay without, as diffusers' pipelines leave
the mask out where all tokens count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tlora_cli.families.facts import Conditioning

TEXT, MASK = "prompt_embeds", "prompt_embeds_mask"
"""Keys of the embeddings, (B, L, ...), and of which tokens count, (B, L) of booleans."""


def evened(texts: Sequence[Conditioning]) -> list[Conditioning]:
    """Return the texts in one length; they stay as they are if they have it already.

    Args:
        texts: rows of each, in any number.
    """
    lengths = {text[TEXT].shape[1] for text in texts if TEXT in text}
    if len(lengths) < 2 and len({MASK in text for text in texts}) < 2:
        return list(texts)
    return [_filled(text, max(lengths)) for text in texts]


def joined(texts: Sequence[Conditioning]) -> Conditioning:
    """Return the texts as the rows of one batch, in order."""
    even = evened(texts)
    return {key: torch.cat([text[key] for text in even]) for key in even[0]}


def mask_of(text: Conditioning) -> Tensor:
    """Return which tokens count, (B, L); all of a text that has no mask."""
    if MASK in text:
        return text[MASK]
    rows: Tensor = text[TEXT]
    return torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)


def _filled(text: Conditioning, length: int) -> Conditioning:
    rows = text[TEXT]
    missing = length - rows.shape[1]
    beyond = (0, 0) * (rows.dim() - 2)
    return {
        **text,
        TEXT: functional.pad(rows, (*beyond, 0, missing)),
        MASK: functional.pad(mask_of(text), (0, missing)),
    }
