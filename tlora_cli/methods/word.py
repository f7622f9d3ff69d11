"""A word whose embedding is learned: Textual Inversion (Gal et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class WordVectors(nn.Module):
    """Vectors in place of a word's token embeddings, one for each of its tokens.

    The word keeps the tokens it has. A token of its own beyond the vocabulary would do as well, but
    SDXL's text encoders take the highest token number for the end of the text.

    Args:
        ids: the word's token numbers.
        start: (D,) where each vector begins, such as the mean embedding of the class's tokens.
    """

    rate = 1.0
    ids: Tensor

    def __init__(self, ids: Sequence[int], start: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(start.detach().float().repeat(len(ids), 1))
        self.register_buffer("ids", torch.tensor(ids), persistent=False)

    def place(self, tokens: Tensor, embedded: Tensor) -> Tensor:
        """Return the embeddings with the word's replaced.

        Args:
            tokens: (B, L) token numbers.
            embedded: (B, L, D) their embeddings.
        """
        count, length = len(self.ids), tokens.shape[1]
        if length < count:
            return embedded
        begins = (tokens.unfold(1, count, 1) == self.ids).all(-1)  # (B, L - count + 1)
        for number, vector in enumerate(self.vectors):
            found = torch.zeros_like(tokens, dtype=torch.bool)
            found[:, number : length - count + 1 + number] = begins
            embedded = torch.where(found[..., None], vector.to(embedded.dtype), embedded)
        return embedded
