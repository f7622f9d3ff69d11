"""A subject on a place: cut out along its mask, scaled, mirrored, laid over the place's picture."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from tlora_cli.photos.framing import Frame
from tlora_cli.training.scenes.placement import SOLID, Box, Placement

SEAM = 0.004
"""Width of the band along the cut that doesn't count, in terms of the side: 4 of 1024 pixels."""
PURE = 0.95
"""Value of a mask from which a pixel shows nothing of the photo's own background."""


def compose(
    pixels: Tensor, mask: Tensor, box: Box, place: Tensor, placement: Placement
) -> tuple[Tensor, Tensor]:
    """Return a scene, (3, H, W) in [-1, 1], and the subject's mask in it, (1, H, W) in [0, 1].

    Args:
        pixels: of the photo, (3, H, W) in [-1, 1].
        mask: of its subject, (1, H, W) in [0, 1].
        box: of the subject.
        place: picture of the place, (3, h, w) in [-1, 1]; of another shape, its middle is taken.
        placement: where the subject goes.
    """
    colors = pure_colors((pixels + 1) / 2, mask)
    part = torch.cat([colors * mask, mask])[:, box.top : box.bottom, box.left : box.right]
    if placement.mirrored:
        part = part.flip(-1)
    size = (placement.height, placement.width)
    # Colors are scaled multiplied by the mask, or the surroundings would bleed into the edge.
    part = functional.interpolate(part[None], size, mode="bicubic", antialias=True)[0]
    color = (part[:3] / part[3:].clamp(min=_LEAST)).clamp(0, 1)
    alpha = part[3:].clamp(0, 1)
    place = fitted(place, *mask.shape[-2:])
    rows = slice(max(0, placement.top), min(place.shape[-2], placement.top + placement.height))
    columns = slice(max(0, placement.left), min(place.shape[-1], placement.left + placement.width))
    own = (
        slice(None),
        slice(rows.start - placement.top, rows.stop - placement.top),
        slice(columns.start - placement.left, columns.stop - placement.left),
    )
    scene, where = (place + 1) / 2, torch.zeros_like(mask)
    under = scene[:, rows, columns]
    scene[:, rows, columns] = under + alpha[own] * (color[own] - under)
    where[:, rows, columns] = alpha[own]
    return scene * 2 - 1, where


def fitted(place: Tensor, height: int, width: int) -> Tensor:
    """Return the largest middle part of a picture that has a shape, at that size.

    Args:
        place: (3, h, w) in [-1, 1].
        height: of the result in pixels.
        width: of the result in pixels.
    """
    if place.shape[-2:] == (height, width):
        return place
    left, top, right, bottom = Frame(width, height).box((place.shape[-1], place.shape[-2]))
    part = place[None, :, top:bottom, left:right]
    sized = functional.interpolate(part, (height, width), mode="bicubic", antialias=True)
    return sized[0].clamp(-1, 1)


_LEAST = 1e-3
"""Share of a pixel under which its color can't be told."""


def pure_colors(colors: Tensor, mask: Tensor) -> Tensor:
    """Return colors in which half-covered pixels have those of the whole ones next to them.

    A pixel on the edge mixes the subject with the photo's background, which would come along as a
    rim. Where no whole pixel is near, as on a hair, colors stay.

    Args:
        colors: (3, H, W) in [0, 1].
        mask: (1, H, W) in [0, 1].
    """
    whole = (mask >= PURE).to(colors)
    reach = max(1, round(SEAM * _side(colors)))
    near = functional.avg_pool2d(whole, 2 * reach + 1, 1, reach)
    mean = functional.avg_pool2d(colors * whole, 2 * reach + 1, 1, reach) / near.clamp(min=1e-6)
    return torch.where((whole == 0) & (near > 0), mean, colors)


def counting(mask: Tensor) -> Tensor:
    """Return which pixels of a subject count in the loss, (1, H, W), 0 or 1.

    All that is solid counts but a narrow band along the seam, where the cut may be wrong; parts
    thinner than two bands count whole.

    Args:
        mask: (1, H, W) in [0, 1].
    """
    solid = (mask >= SOLID).to(torch.float32)
    band = round(SEAM * _side(mask))
    if not band:
        return solid
    inner = _shrunk(solid, band)
    thick = _grown(inner, band)
    return torch.maximum(inner, solid * (1 - thick))


def _side(pixels: Tensor) -> float:
    """Return the side of a square of as many pixels."""
    height, width = pixels.shape[-2:]
    return math.sqrt(height * width)


def _grown(mask: Tensor, by: int) -> Tensor:
    return functional.max_pool2d(mask, 2 * by + 1, 1, by)


def _shrunk(mask: Tensor, by: int) -> Tensor:
    """Return a mask without its rim; a border of the picture is no rim."""
    outside = 1 - mask
    return 1 - functional.max_pool2d(outside, 2 * by + 1, 1, by)
