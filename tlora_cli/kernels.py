"""The masked low-rank update, the one computation every method runs through.

`masked_low_rank` is the formula. The others are the same formula with a backward pass of their own,
accumulated into the layer's output: `add_low_rank` whole, `project_down` and `add_up` in two
halves, so that layers that read one tensor share the first. No gradient is computed that nothing
needs. Between forward and backward pass they keep the input, which the layer itself lets go, and
the r-wide product in the middle; computing that anew would cost two more operations a layer.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Gradients = tuple[Tensor | None, ...]


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
        _check_mask(mask, x)
        hidden = hidden * mask.view(mask.shape[0], *[1] * (x.dim() - 2), mask.shape[1])
    return F.linear(hidden, up)


def add_low_rank(
    output: Tensor, x: Tensor, down: Tensor, up: Tensor, trained: Tensor, mask: Tensor | None
) -> Tensor:
    """Return `output + up (mask * (down x))`, in place of `output` where autograd allows.

    Args:
        output: (B, ..., out), what the layer itself gives; not to be used afterwards.
        x: (B, ..., in).
        down: (w, in).
        up: (out, w), without gradient.
        trained: (out, R), the first R columns of `up`; takes the gradient.
        mask: (B, w) or (1, w), without gradient; None means all ones.

    Raises:
        ValueError: if the mask has neither one row nor one for each sample of `x`.
    """
    _check_mask(mask, x)
    into = _writable(output)
    written: Tensor = _Whole.apply(into, x, down, up, trained, mask)  # type: ignore[no-untyped-call]
    return written.view(output.shape)


def project_down(x: Tensor, down: Tensor, parts: int, mask: Tensor | None) -> tuple[Tensor, ...]:
    """Return `mask * (down x)` for several layers that read the same tensor, in one product.

    Args:
        x: (B, ..., in).
        down: (parts * w, in), the layers' factors one below the other.
        parts: number of layers.
        mask: (B, parts * w) or (1, parts * w), without gradient; None means all ones.

    Returns:
        A (N, w) for each layer, N the product of the dimensions of `x` but the last.

    Raises:
        ValueError: if the mask has neither one row nor one for each sample of `x`.
    """
    _check_mask(mask, x)
    hidden: tuple[Tensor, ...] = _Down.apply(x, down, parts, mask)  # type: ignore[no-untyped-call]
    return hidden


def add_up(output: Tensor, hidden: Tensor, up: Tensor, trained: Tensor) -> Tensor:
    """Return `output + up hidden`, the second half; see `add_low_rank`.

    Args:
        output: (B, ..., out).
        hidden: (N, w), of `project_down`.
        up: (out, w).
        trained: (out, R).
    """
    into = _writable(output)
    written: Tensor = _Up.apply(into, hidden, up, trained)  # type: ignore[no-untyped-call]
    return written.view(output.shape)


def _check_mask(mask: Tensor | None, x: Tensor) -> None:
    if mask is not None and mask.shape[0] not in (1, x.shape[0]):
        raise ValueError(
            f"the mask was made for {mask.shape[0]} timesteps, but the layer's input holds "
            f"{x.shape[0]} samples; pass one timestep, or one for each sample"
        )


def _writable(output: Tensor) -> Tensor:
    """Return the tensor (N, out) or (B, ..., out) to accumulate into.

    A linear layer with a bias gives a view of its 2-d result. Written into the view, autograd would
    copy in the backward pass, so it is written into what the view shows.
    """
    if not output.is_contiguous():
        return output.contiguous()
    base = output._base if torch.is_grad_enabled() else None
    if base is None:
        return output
    width = output.shape[-1]
    if base.shape[-1] == width and base.numel() == output.numel() and base.is_contiguous():
        return base
    return output.clone()


def _rows(x: Tensor) -> Tensor:
    """Return x as (N, features)."""
    return x if x.dim() == 2 else x.reshape(-1, x.shape[-1])


def _mask_rows(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Multiply (N, w), which nobody else holds, by the mask of its samples."""
    if mask is not None:
        hidden.view(mask.shape[0], -1, hidden.shape[1]).mul_(mask.unsqueeze(1))
    return hidden


class _Whole(torch.autograd.Function):
    """y = y + (mask * (x down^T)) up^T, in place."""

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        x: Tensor,
        down: Tensor,
        up: Tensor,
        trained: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        hidden = _mask_rows(F.linear(_rows(x), down), mask)
        ctx.mark_dirty(output)
        ctx.save_for_backward(x, down, up, mask, hidden)
        ctx.trained = trained.shape[1]
        _rows(output).addmm_(hidden, up.t())
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, down, up, mask, hidden = ctx.saved_tensors
        needs_output, needs_x, needs_down, _, needs_up, _ = ctx.needs_input_grad
        of_x = of_down = of_up = None
        rows = _rows(gradient)
        if needs_up:
            of_up = rows.t() @ hidden[:, : ctx.trained]
        if needs_x or needs_down:
            inner = _mask_rows(rows @ up, mask)
            of_x = (inner @ down).view(x.shape) if needs_x else None
            of_down = inner.t() @ _rows(x) if needs_down else None
        return gradient if needs_output else None, of_x, of_down, None, of_up, None


class _Down(torch.autograd.Function):
    """h = mask * (x down^T), cut into equal parts."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, down: Tensor, parts: int, mask: Tensor | None
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, down, mask)
        return _mask_rows(F.linear(_rows(x), down), mask).chunk(parts, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        x, down, mask = ctx.saved_tensors
        needs_x, needs_down, *_ = ctx.needs_input_grad
        inner = _mask_rows(torch.cat(gradients, dim=1), mask)
        return (
            (inner @ down).view(x.shape) if needs_x else None,
            inner.t() @ _rows(x) if needs_down else None,
            None,
            None,
        )


class _Up(torch.autograd.Function):
    """y = y + h up^T, in place."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, hidden: Tensor, up: Tensor, trained: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        ctx.save_for_backward(hidden, up)
        ctx.trained = trained.shape[1]
        _rows(output).addmm_(hidden, up.t())
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        hidden, up = ctx.saved_tensors
        needs_output, needs_hidden, _, needs_up = ctx.needs_input_grad
        rows = _rows(gradient)
        return (
            gradient if needs_output else None,
            rows @ up if needs_hidden else None,
            None,
            rows.t() @ hidden[:, : ctx.trained] if needs_up else None,
        )
