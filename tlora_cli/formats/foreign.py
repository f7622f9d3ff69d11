"""Say what a file is that is no adapter, or no adapter that can be read."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.errors import UserError

UNREADABLE = {
    r"query_norm\.scale$|\.norm_(added_)?[qk]\.weight$": "a control LoRA (FLUX.1 Depth or Canny)",
    r"reshape_weight$": "a LoRA that widens the model's input",
    r"lora_embedding_[AB]": "a LoRA with embeddings of words",
    r"lora_E(\.|$)|ranknum": "an AdaLoRA of PEFT",
    r"vera_lambda": "a VeRA adapter",
    r"\.[ab][12]\.weight$": "a GLoRA adapter (LyCORIS)",
    r"\.base_layer\.": "a model that PEFT has wrapped, not an adapter",
    r"dora_scale|lora_magnitude_vector": "a DoRA adapter",
    r"hada_w1|hada_t1": "a LoHa adapter (LyCORIS)",
    r"lokr_w1|lokr_w2": "a LoKr adapter (LyCORIS)",
    r"lora_mid\.": "a LoCon adapter with a Tucker core (LyCORIS)",
    r"oft_blocks|oft_diag|oft_R": "an OFT adapter",
    r"on_input$": "an IA3 adapter (LyCORIS)",
    r"\.(diff|diff_b|w_norm|b_norm)$": "an adapter with full weight differences (LyCORIS)",
    r"lora_[AB](\.\w+)?\.bias$": "a LoRA with biases",
}
"""Pattern of a key -> the kind of adapter, none of which is a pair of factors a layer."""

MODELS = {
    r"(double|single)_stream_modulation|to_qkv_mlp_proj": "FLUX.2",
    r"distilled_guidance_layer": "Chroma",
    r"joint_blocks[._]\d+": "Stable Diffusion 3",
    r"double_blocks\.\d+\.(img|txt)_attn_(qkv|proj)|individual_token_refiner": "HunyuanVideo",
    r"(double|single)_stream_blocks[._]\d+": "HiDream",
    r"(img|txt)_(mod[._]1\b|mod_1_|mlp[._]net)": "Qwen-Image",
    r"(^|[._])blocks[._]\d+[._](self|cross)_attn[._]": "Wan",
    r"(^|[._])(noise_refiner|context_refiner|layers)[._]\d+[._](attention|feed_forward|adaLN)":
        "Lumina 2 or Z-Image",
    r"^transformer_blocks[._]\d+[._]attn[12][._]": "LTX-Video, Sana or another transformer",
    r"^(down_blocks[._]0[._]attentions|up_blocks[._]3[._]|input_blocks[._][12][._]1[._])":
        "Stable Diffusion 1 or 2",
}  # fmt: skip
"""Pattern of a layer's name, without prefixes -> the model whose layer it is."""

BASE = "use the base model that the adapter was trained on"
OTHERS = {
    r"(?i)lora": "a LoRA whose names are not known",
    r"^model\.diffusion_model\.": "a whole model in one file, not an adapter",
    **{
        key: f"{what}, not an adapter"
        for key, what in (family.whole_model for family in FAMILIES.values())
    },
    r"^(text_model|text_encoders?|transformer\.resblocks)\.": "a text encoder, not an adapter",
    r"^(encoder|decoder|first_stage_model)\.": "a VAE or an encoder, not an adapter",
    r"^(emb_params|string_to_param|clip_g|clip_l)": "a textual inversion embedding",
    r"^(control_model|controlnet|input_hint)": "a ControlNet",
}


def unreadable_kind(keys: Collection[str]) -> str | None:
    """Return the kind of adapter if it is one that can't be read, else None."""
    return _first_match(UNREADABLE, keys)


def refuse_unreadable(keys: Collection[str], path: Path) -> None:
    """Raise a UserError if the keys belong to an adapter that is more than pairs of factors."""
    kind = unreadable_kind(keys)
    if kind:
        raise _refusal(f"the file is {kind}, which tlora can't apply", path)


def unknown(keys: Collection[str], path: Path) -> UserError:
    """Return the error for a file of no known format."""
    if not keys:
        return UserError("the file holds no tensors", str(path), "download or copy it again")
    kind = unreadable_kind(keys) or _first_match(OTHERS, keys)
    if kind:
        return _refusal(f"the file is {kind}", path)
    return _refusal(f"the file is no adapter that tlora knows; it holds {min(keys)}", path)


def lacking(name: str, path: Path | str) -> UserError:
    """Return the error for a layer that the model lacks; it says the other model, if it is known.

    Args:
        name: of the layer, without prefixes.
        path: of the file.
    """
    other = _first_match(MODELS, [name])
    return UserError(
        f"the adapter has a layer the model lacks: {name}" + (f", as {other} has" if other else ""),
        where=str(path),
        do=f"use it with {other}"
        if other
        else "use the base model that the adapter was trained on",
    )


def refuse_other_models(layers: Collection[str], present: Collection[str], path: Path) -> None:
    """Raise a UserError if layers are not the model's but another's, whose name is known."""
    own = {_first_match(MODELS, [name]) for name in present}
    for name in sorted(set(layers) - set(present)):
        other = _first_match(MODELS, [name])
        if other and other not in own:
            raise lacking(name, path)


def _refusal(what: str, path: Path) -> UserError:
    return UserError(
        what,
        where=str(path),
        do="use an adapter made by tlora, a diffusers or kohya LoRA, or a published T-LoRA",
    )


def _first_match(table: dict[str, str], keys: Collection[str]) -> str | None:
    for pattern, kind in table.items():
        if any(re.search(pattern, key) for key in keys):
            return kind
    return None
