"""Model families by name."""

from __future__ import annotations

from typing import Any

from tlora_cli.families.flux import Flux
from tlora_cli.families.sdxl import SDXL
from tlora_cli.families.spec import Conditioning, Family, LatentDistribution
from tlora_cli.foundation.errors import UserError

__all__ = ["FAMILIES", "Conditioning", "Family", "LatentDistribution", "family_of"]

FAMILIES: dict[str, Family] = {family.name: family for family in (SDXL(), Flux())}
"""Name -> family."""


def family_of(model: Any) -> Family:
    """Return the family of a denoiser or a pipeline.

    Raises:
        UserError: if it belongs to none.
    """
    for family in FAMILIES.values():
        if isinstance(getattr(model, family.denoiser, model), family.denoiser_class):
            return family
    raise UserError(
        f"{type(model).__name__} is not a model that tlora can adapt",
        do="pass an SDXL UNet2DConditionModel, a FluxTransformer2DModel, or a pipeline with one",
    )


def denoiser_of(model: Any) -> Any:
    """Return the denoiser of a pipeline, or the denoiser itself."""
    return getattr(model, family_of(model).denoiser, model)
