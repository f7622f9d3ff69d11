"""The masked low-rank update, the one computation every method runs through."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def masked_low_rank(x: Tensor, down: Tensor, up: Tensor, mask: Tensor | None) -> Tensor:
    """Return `up (mask * (down x))`, the adapter's share of a layer's output.

    Args:
        x: (B, ..., in).
        down: (w, in).
        up: (out, w).
        mask: (B, w) or (1, w); None means all ones.

    Returns:
        (B, ..., out) in the dtype of `x`.

    Raises:
        ValueError: if the mask has neither one row nor one for each sample of `x`.
    """
    hidden = F.linear(x, down)
    if mask is not None:
        if mask.shape[0] not in (1, x.shape[0]):
            raise ValueError(
                f"the mask was made for {mask.shape[0]} timesteps, but the layer's input holds "
                f"{x.shape[0]} samples; pass one timestep, or one for each sample"
            )
        hidden = hidden * mask.view(mask.shape[0], *[1] * (x.dim() - 2), mask.shape[1])
    return F.linear(hidden, up)
