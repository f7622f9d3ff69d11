"""Model families by name: a file for each says all its facts."""

from __future__ import annotations

from typing import Any

from tlora_cli.families.facts import Conditioning, LatentDistribution
from tlora_cli.families.spec import Family
from tlora_cli.families.wrapping import unwrapped
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.plugins import Registry

__all__ = [
    "FAMILIES",
    "Conditioning",
    "Family",
    "LatentDistribution",
    "denoiser_of",
    "family_of",
    "objective_names",
    "sampler_names",
]

FAMILIES: Registry[Family] = Registry(
    "tlora.families",
    {
        "sdxl": "tlora_cli.families.sdxl:SDXL",
        "flux": "tlora_cli.families.flux:FLUX",
        "flux2": "tlora_cli.families.flux2:FLUX2",
        "z_image": "tlora_cli.families.z_image:Z_IMAGE",
        "qwen_image": "tlora_cli.families.qwen_image:QWEN_IMAGE",
        "sd3": "tlora_cli.families.sd3:SD3",
        "krea2": "tlora_cli.families.krea2:KREA2",
        "qwen_image_21": "tlora_cli.families.qwen_image_21:QWEN_IMAGE_21",
    },
)
"""Name -> family; the first is the one that is taken if nothing says another."""


def sampler_names() -> tuple[str, ...]:
    """Return the names of the samplers of all families."""
    return tuple(dict.fromkeys(name for one in FAMILIES.values() for name in one.samplers))


def objective_names() -> tuple[str, ...]:
    """Return the recipe names of the objectives of all families."""
    return tuple(dict.fromkeys(name for one in FAMILIES.values() for name in one.objectives))


def family_of(model: Any) -> Family:
    """Return the family of a denoiser or a pipeline.

    Raises:
        UserError: if it belongs to none.
    """
    inner = unwrapped(model)
    for family in FAMILIES.values():
        if _is_instance(unwrapped(getattr(inner, family.denoiser, inner)), family.denoiser_class):
            return family
    if type(inner).__module__.partition(".")[0] == "peft":
        raise UserError(
            f"the model is wrapped by PEFT ({type(inner).__name__})",
            do="pass the denoiser itself, without its LoRA: model.unload()",
        )
    known = ", ".join(family.denoiser_words for family in FAMILIES.values())
    raise UserError(
        f"{type(model).__name__} is not a model that tlora can adapt",
        do=f"pass {known}, or a pipeline with one",
    )


def denoiser_of(model: Any) -> Any:
    """Return the denoiser of a pipeline, or the denoiser itself, without wrappers of torch."""
    inner = unwrapped(model)
    return unwrapped(getattr(inner, family_of(model).denoiser, inner))


def _is_instance(model: Any, place: str) -> bool:
    """Say whether an object is of the class at `module:class`, without importing that class.

    The module may be the package that gives the class to users, as diffusers does.
    """
    module, _, name = place.partition(":")
    package = module.partition(".")[0]
    return any(
        one.__name__ == name and one.__module__.partition(".")[0] == package
        for one in type(model).__mro__
    )
