"""The masked low-rank update, the one computation every method runs through.

`masked_low_rank` is the formula. The others are the same formula with a backward pass of their own,
accumulated into the layer's output: `add_low_rank` whole, `project_down` and `add_up` in two
halves, so that layers that read one tensor share the first. No gradient is computed that nothing
needs. Between forward and backward pass they keep the input, which the layer itself lets go, and
the r-wide product in the middle; computing that anew would cost two more operations a layer.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
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
        check_mask(mask, x)
        hidden = hidden * mask.view(mask.shape[0], *[1] * (x.dim() - 2), mask.shape[1])
    return F.linear(hidden, up)


@dataclass(slots=True)
class Pair:
    """Factors of one or more layers that read the same tensor; all gradients go to the last two.

    Attributes:
        down: (layers * w, in), the layers' factors one below the other.
        ups: (out, w) of each layer.
        trained_down: (layers, R, in), the first R of each layer's w rows of `down`. The others, if
            there are any, are the same but for a constant, again R at a time.
        trained_ups: (out, R) of each layer, the first R columns of `ups`; the others are constants.
    """

    down: Tensor
    ups: Sequence[Tensor]
    trained_down: Tensor
    trained_ups: Sequence[Tensor]

    def of(self, index: int) -> Pair:
        """Return the pair of one layer."""
        return Pair(
            self.down.chunk(len(self.ups))[index],
            self.ups[index : index + 1],
            self.trained_down[index : index + 1],
            self.trained_ups[index : index + 1],
        )

    def cast(self, dtype: torch.dtype) -> Pair:
        """Return the pair in another number format."""
        return Pair(
            self.down.to(dtype),
            [up.to(dtype) for up in self.ups],
            self.trained_down.to(dtype),
            [up.to(dtype) for up in self.trained_ups],
        )

    def differentiable(self, index: int) -> tuple[Tensor, Tensor]:
        """Return down (w, in) and up (out, w) of one layer, with gradients, for any formula."""
        # Without its gradient, which it has where the factors needed no cast.
        down, up = self.down.chunk(len(self.ups))[index].detach(), self.ups[index]
        rows, columns = self.trained_down[index], self.trained_ups[index]
        # Adds zero, and lets the gradient through.
        down = down + (rows - rows.detach()).repeat(len(down) // len(rows), 1)
        if up.shape == columns.shape:
            return down, columns
        return down, torch.cat([columns, up[:, columns.shape[1] :]], dim=1)


def add_low_rank(output: Tensor, x: Tensor, pair: Pair, mask: Tensor | None) -> Tensor:
    """Return `output + up (mask * (down x))`, in place of `output` where autograd allows.

    Args:
        output: (B, ..., out), what the layer itself gives; not to be used afterwards.
        x: (B, ..., in).
        pair: factors of one layer.
        mask: (B, w) or (1, w), without gradient; None means all ones.

    Raises:
        ValueError: if the mask has neither one row nor one for each sample of `x`.
    """
    check_mask(mask, x)
    [up], [trained_up] = pair.ups, pair.trained_ups
    written: Tensor = _Whole.apply(  # type: ignore[no-untyped-call]
        _writable(output), x, pair.down, up, mask, pair.trained_down, trained_up
    )
    return written if written.shape == output.shape else written.view(output.shape)


def project_down(x: Tensor, pair: Pair, mask: Tensor | None) -> tuple[Tensor, ...]:
    """Return `mask * (down x)` for layers that read the same tensor, in one product.

    Args:
        x: (B, ..., in).
        pair: factors of the layers.
        mask: (B, w) or (1, w), without gradient; None means all ones.

    Returns:
        A (N, w) for each layer, N the product of the dimensions of `x` but the last.

    Raises:
        ValueError: if the mask has neither one row nor one for each sample of `x`.
    """
    check_mask(mask, x)
    hidden: tuple[Tensor, ...] = _Down.apply(  # type: ignore[no-untyped-call]
        x, pair.down, mask, pair.trained_down
    )
    return hidden


def add_up(output: Tensor, hidden: Tensor, pair: Pair, index: int) -> Tensor:
    """Return `output + up hidden`, the second half for layer `index`; see `add_low_rank`."""
    written: Tensor = _Up.apply(  # type: ignore[no-untyped-call]
        _writable(output), hidden, pair.ups[index], pair.trained_ups[index]
    )
    return written if written.shape == output.shape else written.view(output.shape)


def check_mask(mask: Tensor | None, x: Tensor) -> None:
    """Raise a ValueError if the mask has neither one row nor one for each sample of `x`."""
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
    """Multiply (N, layers * w), which nobody else holds, by the mask (B, w) of its samples."""
    if mask is not None:
        batch, width = mask.shape
        hidden.view(batch, -1, hidden.shape[1] // width, width).mul_(mask.view(batch, 1, 1, width))
    return hidden


def _gradient_of_down(inner: Tensor, x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the gradient of the trained rows, (layers, R, in).

    Args:
        inner: (N, layers * w), gradient of the product with x.
        x: (B, ..., in).
        shape: of the trained rows.
    """
    layers, rank, _ = shape
    copies = inner.shape[1] // (layers * rank)
    if copies > 1:  # added before the product rather than after: half the work
        apart = inner.view(-1, layers, copies, rank).unbind(2)
        inner = functools.reduce(torch.add, apart).view(-1, layers * rank)
    return (inner.t() @ _rows(x)).view(shape)


class _Whole(torch.autograd.Function):
    """y = y + (mask * (x down^T)) up^T, in place."""

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        x: Tensor,
        down: Tensor,
        up: Tensor,
        mask: Tensor | None,
        trained_down: Tensor,
        trained_up: Tensor,
    ) -> Tensor:
        hidden = _mask_rows(F.linear(_rows(x), down), mask)
        ctx.mark_dirty(output)
        ctx.save_for_backward(x, down, up, mask, hidden)
        ctx.trained = trained_down.shape
        _rows(output).addmm_(hidden, up.t())
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, down, up, mask, hidden = ctx.saved_tensors
        needs_output, needs_x, _, _, _, needs_down, needs_up = ctx.needs_input_grad
        of_output = of_x = of_down = of_up = None
        rows = _rows(gradient)
        if needs_output:  # if rows had to be copied, the layer itself need not copy again
            of_output = rows.view(gradient.shape)
        if needs_up:
            of_up = rows.t() @ hidden[:, : ctx.trained[1]]
        if needs_x or needs_down:
            inner = _mask_rows(rows @ up, mask)
            of_x = (inner @ down).view(x.shape) if needs_x else None
            of_down = _gradient_of_down(inner, x, ctx.trained) if needs_down else None
        return of_output, of_x, None, None, None, of_down, of_up


class _Down(torch.autograd.Function):
    """h = mask * (x down^T), cut into the layers' parts."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, down: Tensor, mask: Tensor | None, trained_down: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, down, mask)
        ctx.trained = trained_down.shape
        return _mask_rows(F.linear(_rows(x), down), mask).chunk(len(trained_down), dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        x, down, mask = ctx.saved_tensors
        needs_x, _, _, needs_down = ctx.needs_input_grad
        inner = _mask_rows(torch.cat(gradients, dim=1), mask)
        return (
            (inner @ down).view(x.shape) if needs_x else None,
            None,
            None,
            _gradient_of_down(inner, x, ctx.trained) if needs_down else None,
        )


class _Up(torch.autograd.Function):
    """y = y + h up^T, in place."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, hidden: Tensor, up: Tensor, trained_up: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        ctx.save_for_backward(hidden, up)
        ctx.rank = trained_up.shape[1]
        _rows(output).addmm_(hidden, up.t())
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        hidden, up = ctx.saved_tensors
        needs_output, needs_hidden, _, needs_up = ctx.needs_input_grad
        rows = _rows(gradient)
        return (
            rows.view(gradient.shape) if needs_output else None,
            rows @ up if needs_hidden else None,
            None,
            rows.t() @ hidden[:, : ctx.rank] if needs_up else None,
        )
