"""Textual Inversion: a word whose embedding is learned, and nothing else (Gal et al. 2022).

    e(token) = v_i for the i-th token of the placeholder, else the text encoder's own

The vectors v begin at the mean embedding of the class's tokens. The word keeps the tokens it has. A
token of its own beyond the vocabulary would do as well, but SDXL's text encoders take the highest
token number for the end of the text.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tlora_cli.methods.dreambooth import DREAMBOOTH
from tlora_cli.methods.spec import by_family

if TYPE_CHECKING:
    from torch import Tensor


def with_word(tokens: Tensor, embedded: Tensor, ids: Tensor, vectors: Tensor) -> Tensor:
    """Return the embeddings with the word's replaced.

    Args:
        tokens: (B, L) token numbers.
        embedded: (B, L, D) their embeddings; not written to.
        ids: (n,) the word's token numbers.
        vectors: (n, D), one for each of them.
    """
    import torch

    count, length = len(ids), tokens.shape[1]
    if length < count:
        return embedded
    begins = (tokens.unfold(1, count, 1) == ids).all(-1)  # (B, L - count + 1)
    for number, vector in enumerate(vectors):
        found = torch.zeros_like(tokens, dtype=torch.bool)
        found[:, number : length - count + 1 + number] = begins
        embedded = torch.where(found[..., None], vector.to(embedded.dtype), embedded)
    return embedded


# What it would do to weights does not matter, as it reaches none; a damaged file may say otherwise.
TEXTUAL_INVERSION = replace(
    DREAMBOOTH,
    name="textual_inversion",
    about="a learned word alone",
    reach="nothing",
    word=True,
    steps=by_family(sdxl=500),
    settings={"train": {"optimizer": {"name": "adamw", "lr": 5e-4}}},
)
