"""Latents as tokens: each patch of 2 x 2 places is one."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(latents: Tensor) -> Tensor:
    """Turn (B, C, h, w) into tokens (B, h/2 * w/2, 4C): each 2 x 2 patch is a token."""
    batch, channels, height, width = latents.shape
    patches = latents.view(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo `pack` for latents of height x width."""
    batch, _, channels = tokens.shape
    patches = tokens.view(batch, height // 2, width // 2, channels // 4, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, height, width)


def four_ids(height: int, width: int, text: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return (0, row, column, 0) of a latent's tokens, and (0, 0, 0, place) of a text's.

    Args:
        height: of the latent.
        width: of the latent.
        text: tokens of the text.
        device: where they go.

    Returns:
        (h/2 * w/2, 4) and (text, 4), whole numbers.
    """
    rows = torch.arange(height // 2, device=device).repeat_interleave(width // 2)
    columns = torch.arange(width // 2, device=device).repeat(height // 2)
    zeros, places = torch.zeros_like(rows), torch.arange(text, device=device)
    none = torch.zeros_like(places)
    return (
        torch.stack([zeros, rows, columns, zeros], dim=1),
        torch.stack([none, none, none, places], dim=1),
    )


def image_ids(height: int, width: int, like: Tensor) -> Tensor:
    """Return the tokens' (0, row, column), (h/2 * w/2, 3)."""
    rows = torch.arange(height // 2, device=like.device).repeat_interleave(width // 2)
    columns = torch.arange(width // 2, device=like.device).repeat(height // 2)
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=1).to(like.dtype)
