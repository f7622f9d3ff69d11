"""Methods by name, a file for each formula (T-LoRA, tables 1 and 2)."""

from __future__ import annotations

from tlora_cli.foundation.plugins import Registry
from tlora_cli.methods.spec import LowRank, Method, Start, StartSettings, Tensors, Weights

__all__ = [
    "DEFAULT",
    "METHODS",
    "PLAIN",
    "LowRank",
    "Method",
    "Start",
    "StartSettings",
    "Tensors",
    "Weights",
    "method_of_pair",
]

METHODS: Registry[Method] = Registry(
    "tlora.methods",
    {
        "lora": "tlora_cli.methods.lora:LORA",
        "vanilla_tlora": "tlora_cli.methods.lora:VANILLA_TLORA",
        "ortho_lora": "tlora_cli.methods.tlora:ORTHO_LORA",
        "tlora": "tlora_cli.methods.tlora:TLORA",
        "pissa": "tlora_cli.methods.pissa:PISSA",
        "adalora": "tlora_cli.methods.adalora:ADALORA",
        "oft": "tlora_cli.methods.oft:OFT",
        "oft_v2": "tlora_cli.methods.oft:OFT_V2",
        "gsoft": "tlora_cli.methods.gsoft:GSOFT",
        "gsoft_double": "tlora_cli.methods.gsoft:GSOFT_DOUBLE",
        "svdiff": "tlora_cli.methods.svdiff:SVDIFF",
        "dreambooth": "tlora_cli.methods.dreambooth:DREAMBOOTH",
        "dreambooth_full": "tlora_cli.methods.dreambooth:DREAMBOOTH_FULL",
        "custom_diffusion": "tlora_cli.methods.custom_diffusion:CUSTOM_DIFFUSION",
        "textual_inversion": "tlora_cli.methods.textual_inversion:TEXTUAL_INVERSION",
    },
)
"""Name -> method; its file is imported when it is asked for, and imports nothing heavy."""

DEFAULT = "tlora"
"""Method that a recipe trains if it says none."""
PLAIN = "lora"
"""Method of an adapter file that says none."""


def method_of_pair(copies: int, masked: bool) -> Method:
    """Return the method of a file's pairs of factors that have these copies.

    Args:
        copies: blocks of R rows in `down`.
        masked: whether the file has a rank schedule.
    """
    from tlora_cli.methods import lora, tlora

    if copies == tlora.UPDATE.copies:
        return tlora.TLORA if masked else tlora.ORTHO_LORA
    return lora.VANILLA_TLORA if masked else lora.LORA
