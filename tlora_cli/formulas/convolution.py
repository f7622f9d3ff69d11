"""The masked low-rank update of a convolution.

A weight W (out, in, k, k) is the matrix (out, in * k * k), and its factors are those of a linear
layer: down (w, in * k * k) is a convolution of its own to w channels, with the stride, padding and
dilation of W, and up (out, w) one of 1 x 1 (LoCon, as in LyCORIS, kohya's sd-scripts and PEFT). The
rank mask acts on the w channels in between. Merged, W + up diag(mask) down is the same convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tlora_cli.formulas.masked_low_rank import check_mask

Sides = tuple[int, int]


@dataclass(frozen=True)
class Convolution:
    """A convolution's geometry; it has one group, and pads with zeros.

    Attributes:
        channels: of its input.
        kernel, stride, dilation: height and width.
        padding: likewise, or `same` or `valid`.
    """

    channels: int
    kernel: Sides
    stride: Sides
    padding: Sides | str
    dilation: Sides

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the convolution of x (B, in, h, w) with weights (out, in * k * k)."""
        whole = weight.view(len(weight), self.channels, *self.kernel)
        return F.conv2d(x, whole, bias, self.stride, self.padding, self.dilation)

    def masked_low_rank(self, x: Tensor, down: Tensor, up: Tensor, mask: Tensor | None) -> Tensor:
        """Return `up (mask * (down x))`, the adapter's share of the layer's output.

        Args:
            x: (B, in, h, w).
            down: (w, in * k * k).
            up: (out, w).
            mask: (B, w) or (1, w); None means all ones.

        Raises:
            ValueError: if the mask has neither one row nor one for each sample of `x`.
        """
        hidden = self(x, down)
        if mask is not None:
            check_mask(mask, x)
            hidden = hidden * mask[:, :, None, None]
        return F.conv2d(hidden, up[:, :, None, None])

    def stored(self, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors as files hold them: (w, in, k, k) and (out, w, 1, 1)."""
        return down.view(len(down), self.channels, *self.kernel), up[:, :, None, None]


def as_matrices(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors as files hold them, of any layer, as (w, in) and (out, w)."""
    return down.flatten(1), up.flatten(1)


@dataclass(frozen=True)
class ConvolutionMatrix:
    """A convolution as what a method starts from: a linear layer of its flattened weights."""

    module: Any

    @property
    def weight(self) -> Tensor:
        """The weights (out, in * k * k)."""
        weight: Tensor = self.module.weight
        return weight.flatten(1)

    @property
    def out_features(self) -> int:
        """Its output channels."""
        return self.weight.shape[0]

    @property
    def in_features(self) -> int:
        """The numbers that one of its outputs is made of."""
        return self.weight.shape[1]
