"""The names that tools give a LoRA's tensors -> layer and part.

A name is a prefix for the denoiser (`unet.`, `transformer.`, `diffusion_model.`, PEFT's
`base_model.model.`, several of them, or none), a layer in diffusers' or in the original model's
names, and a part, such as `lora_A.weight`, `lora_down.weight` or `lora.down.weight`. Wrappers of
torch (`_orig_mod.` of a compiled module) stand anywhere between. These are the names that diffusers
0.42 converts (`loaders/lora_conversion_utils.py`) and that ComfyUI reads.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tlora_cli.families import FAMILIES

OWN_PREFIX = "base_model.model."
"""Prefix that PEFT itself puts before a layer's name."""
PREFIXES = (
    *dict.fromkeys(f"{family.denoiser}." for family in FAMILIES.values()),
    OWN_PREFIX,
    "model.diffusion_model.",
    "diffusion_model.",
)
"""Prefixes that a layer's name may have, one or more."""
TEXT_PREFIXES = (
    "lora_te",
    "text_encoder",
    "text_model.",
    "te.",
    "te1.",
    "te2.",
    "clip_l.",
    "clip_g.",
    "t5.",
    "t5xxl.",
)
"""Beginnings of the names of text encoder layers."""

_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_PART = re.compile(
    r"(?P<layer>.+?)[._](?P<part>lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up"
    r"|lora_linear_layer\.down|lora_linear_layer\.up)"
    r"(?:\.(?P<adapter>(?!weight$|bias$)[\w-]+))?(?:\.weight)?"
)
_ALPHA = re.compile(r"(?P<layer>.+?)(?:[._]lora)?\.alpha")
_XLABS = re.compile(
    r"(?P<blocks>double|single)_blocks\.(?P<number>\d+)\.processor\.(?P<layer>qkv|proj)_lora"
    r"(?P<stream>[12]?)\.(?P<part>down|up)\.weight"
)
"""Names of XLabs' trainer of FLUX (x-flux), whose attention processors hold the factors."""
_DOWN = ("lora_A", "lora_down", "lora.down", "lora_linear_layer.down", "down")


class Name(NamedTuple):
    """A tensor's name, taken apart.

    Attributes:
        prefixes: that it had, from the outside in.
        layer: name of the layer, of diffusers or the original model.
        part: `down`, `up` or `alpha`.
        adapter: PEFT's name of the adapter, if it has one.
    """

    prefixes: tuple[str, ...]
    layer: str
    part: str
    adapter: str | None = None


def bare(key: str) -> tuple[tuple[str, ...], str]:
    """Return the prefixes of a name, and what follows them; wrappers are left out."""
    rest, prefixes = _WRAPPERS.sub("", key), []
    while prefix := next((one for one in PREFIXES if rest.startswith(one)), ""):
        prefixes.append(prefix)
        rest = rest.removeprefix(prefix)
    return tuple(prefixes), rest


def is_of_text(key: str) -> bool:
    """Say whether a name is that of a text encoder's layer."""
    rest = _WRAPPERS.sub("", key)
    return rest.startswith(TEXT_PREFIXES) or bare(key)[1].startswith(TEXT_PREFIXES)


def parse(key: str) -> Name | None:
    """Return a name, taken apart; None if it is none of a LoRA."""
    prefixes, rest = bare(key)
    if found := _XLABS.fullmatch(rest):
        return Name(prefixes, _xlabs(found), _part(found["part"]))
    rest = rest.replace(".processor.", ".")  # the older names of diffusers
    if found := _ALPHA.fullmatch(rest):
        return Name(prefixes, found["layer"], "alpha")
    found = _PART.fullmatch(rest)
    if found is None:
        return None
    layer = found["layer"]
    if layer.endswith(".to_out"):  # the older names leave out the index
        layer += ".0"
    return Name(prefixes, layer, _part(found["part"]), found["adapter"])


def _part(name: str) -> str:
    return "down" if name in _DOWN else "up"


def _xlabs(found: re.Match[str]) -> str:
    """Return the layer in the original model's names; the text's stream is the second one."""
    number, layer = found["number"], found["layer"]
    if found["blocks"] == "double":
        stream = "txt" if found["stream"] == "2" else "img"
        return f"double_blocks.{number}.{stream}_attn.{layer}"
    return f"single_blocks.{number}.{'attn_qkv' if layer == 'qkv' else 'linear2'}"
