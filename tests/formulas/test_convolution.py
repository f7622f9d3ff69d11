"""The update of a convolution: numbers and gradients against the formula on unfolded patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlora_cli.formulas.convolution import Convolution, ConvolutionMatrix, as_matrices

CHANNELS, OUT, WIDTH, BATCH = 3, 5, 4, 2
GEOMETRIES = {
    "resnet": {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)},
    "shortcut": {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)},
    "downsampler": {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1)},
    "dilated": {"kernel": (3, 2), "stride": (2, 1), "padding": (2, 1), "dilation": (2, 3)},
}


def patches(x: Tensor, one: dict[str, Any]) -> Tensor:
    """Return (B, in * k * k, places): what each place of the output is made of."""
    sizes = {key: one[key] for key in ("stride", "padding", "dilation")}
    return F.unfold(x, one["kernel"], **sizes)


def numbers(one: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(1)
    area = one["kernel"][0] * one["kernel"][1]

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance, dtype=torch.float64).requires_grad_()

    mask = torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 0]], dtype=torch.float64)
    return draw(BATCH, CHANNELS, 9, 8), draw(WIDTH, CHANNELS * area), draw(OUT, WIDTH), mask


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_update_and_gradients_are_the_formula_on_patches(geometry: str) -> None:
    one = GEOMETRIES[geometry]
    x, down, up, mask = numbers(one)
    found = Convolution(CHANNELS, **one).masked_low_rank(x, down, up, mask)
    gradient = torch.randn(found.shape, generator=torch.Generator().manual_seed(2)).double()
    found.backward(gradient)

    seen, flat = patches(x.detach(), one), gradient.flatten(2)
    hidden = mask[:, :, None] * torch.einsum("ri,bip->brp", down, seen)
    expected = torch.einsum("or,brp->bop", up, hidden)
    torch.testing.assert_close(found.flatten(2), expected)

    inner = mask[:, :, None] * torch.einsum("or,bop->brp", up, flat)
    torch.testing.assert_close(up.grad, torch.einsum("bop,brp->or", flat, hidden))
    torch.testing.assert_close(down.grad, torch.einsum("brp,bip->ri", inner, seen))
    back = torch.einsum("ri,brp->bip", down, inner)
    sizes = {key: one[key] for key in ("stride", "padding", "dilation")}
    expected = F.fold(back, x.shape[2:], one["kernel"], **sizes)
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_it_is_the_same_convolution_with_the_update_in_its_weights(geometry: str) -> None:
    one = GEOMETRIES[geometry]
    x, down, up, _ = numbers(one)
    sides = (one["kernel"], one["stride"], one["padding"], one["dilation"])
    layer = nn.Conv2d(CHANNELS, OUT, *sides).double()
    mask = torch.tensor([[1.0, 0, 1, 0]]).double()
    own = Convolution(CHANNELS, **one)
    found = layer(x) + own.masked_low_rank(x, down, up, mask)
    whole = ConvolutionMatrix(layer).weight + up @ (mask.T * down)
    torch.testing.assert_close(found, own(x, whole, layer.bias))
    layer.weight.data = whole.detach().view_as(layer.weight)
    torch.testing.assert_close(found, layer(x))


def test_a_layer_s_shape_and_its_factors_in_a_file() -> None:
    layer = nn.Conv2d(CHANNELS, OUT, 3)
    matrix = ConvolutionMatrix(layer)
    assert (matrix.out_features, matrix.in_features) == (OUT, CHANNELS * 9)
    torch.testing.assert_close(matrix.weight[2, 9 + 3 + 1], layer.weight[2, 1, 1, 1])
    down, up = torch.randn(WIDTH, CHANNELS * 9), torch.randn(OUT, WIDTH)
    geometry = Convolution(CHANNELS, (3, 3), (1, 1), (1, 1), (1, 1))
    stored = geometry.stored(down, up)
    assert [tuple(one.shape) for one in stored] == [(WIDTH, CHANNELS, 3, 3), (OUT, WIDTH, 1, 1)]
    for found, expected in zip(as_matrices(*stored), (down, up), strict=True):
        assert torch.equal(found, expected)
    assert all(one is two for one, two in zip(as_matrices(down, up), (down, up), strict=True))


def test_a_mask_for_other_samples_is_refused() -> None:
    one = GEOMETRIES["resnet"]
    x, down, up, _ = numbers(one)
    with pytest.raises(ValueError, match="made for 3 timesteps"):
        Convolution(CHANNELS, **one).masked_low_rank(x, down, up, torch.ones(3, WIDTH))
