"""Krea 2 (Krea AI 2026): a rectified-flow transformer over text and picture as one sequence.

Public facts of diffusers 0.42 (`Krea2Pipeline`, the defaults of `Krea2Transformer2DModel`), of
krea/Krea-2-Raw and of diffusers' own trainer of a LoRA (`train_dreambooth_lora_krea2.py`), which
says what the makers recommend to adapt.

**What is adapted.** Queries, keys, values, gate and output of the 28 blocks: what the makers name
for long training. The four attentions of `text_fusion` are left out: two of them see each token's
twelve layers of text as a sequence, (B L, 12, D), so their rows are no samples, of which each has
a mask.

**Texts** always have 512 tokens and a mask: a prompt is filled up before the end of its template.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tlora_cli.families.comfyui_parts import flow_sampling, flow_times, loaded_apart
from tlora_cli.families.facts import Argument, Conditioning, License, TextEncoder
from tlora_cli.families.packed_flow import PackedFlow
from tlora_cli.families.rectified_flow import (
    GIVEN_LEVELS,
    MASKED_AS_FOR_FLUX,
    as_published_for_flux,
)
from tlora_cli.foundation.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BASE = "krea/Krea-2-Raw"
TURBO = "krea/Krea-2-Turbo"
LICENSE = License("other", "krea-2-community", "https://www.krea.ai/krea-2-licensing")
STEPS, GUIDANCE = 28, 4.5  # defaults of the pipeline (diffusers 0.42)
COMFYUI_SHIFT = 1.15
"""ComfyUI's default shift of Krea 2."""
SMALL = {"gradient_checkpointing": True}
END = 5
"""Tokens of the template's end, which stand behind a prompt and count among the 512."""
IN_BLOCK = {
    "attn_wq": "attn.to_q",
    "attn_wk": "attn.to_k",
    "attn_wv": "attn.to_v",
    "attn_wo": "attn.to_out.0",
    "attn_gate": "attn.to_gate",
    "mlp_gate": "ff.gate",
    "mlp_up": "ff.up",
    "mlp_down": "ff.down",
}
BLOCKS = (
    ("blocks", "transformer_blocks"),
    ("txtfusion_layerwise_blocks", "text_fusion.layerwise_blocks"),
    ("txtfusion_refiner_blocks", "text_fusion.refiner_blocks"),
)
OUTSIDE_BLOCKS = {
    "first": "img_in",
    "last_linear": "final_layer.linear",
    "tmlp_0": "time_embed.linear_1",
    "tmlp_2": "time_embed.linear_2",
    "tproj_1": "time_mod_proj",
    "txtmlp_1": "txt_in.linear_1",
    "txtmlp_3": "txt_in.linear_2",
    "txtfusion_projector": "text_fusion.projector",
}
"""Name of the original model -> layer; blocks of the original model, and of diffusers."""


class Krea2(PackedFlow):
    """A transformer of single-stream blocks with gates, and the text of twelve layers."""

    name = "krea2"
    title = "Krea 2"
    denoiser_words = "a Krea2Transformer2DModel"
    denoiser = "transformer"
    denoiser_class = "diffusers:Krea2Transformer2DModel"
    pipeline_class = "diffusers:Krea2Pipeline"
    vae_class = "diffusers:AutoencoderKLQwenImage"
    vae_frames = True
    text_encoders = (TextEncoder("text_encoder", "tokenizer"),)
    text_tokens = 512
    text_tokenizer = "tokenizer"
    no_learned_words = (
        "Krea 2's text encoder cuts a word into other tokens behind a space than without one, so "
        "none always stand for it"
    )
    single_file_is_whole = False
    single_file_keys = ("txtfusion.",)
    targets = r"transformer_blocks\.\d+\.attn\.to_(q|k|v|gate|out\.0)"
    # Its modulation stands outside of the blocks, which share it, and is not among these.
    named_targets: ClassVar = dict.fromkeys(("linear", "all"), r"transformer_blocks\..+")
    # Queries and gate read the same, but others run between them, so their product is not kept.
    shared_input = r"(.*\.attn)\.to_[kv]|(.*\.ff)\.(?:gate|up)"
    layer_prefixes = ("transformer_blocks", "blocks", "text_fusion", "txtfusion")
    # Blocks of FLUX, Stable Diffusion 3 and Qwen-Image are called alike, Wan's as the original's.
    foreign_layers = (
        r"single_|double_|attn2|to_qkv|add_[qkv]_proj|to_add_out|norm1[._]linear"
        r"|[._]ff(_context)?[._](net|linear)|[._](img|txt)_(mod|mlp)|(self|cross)_attn|[._]ffn[._]"
    )
    whole_model = (
        r"^(transformer_)?blocks\.\d+\.(scale_shift_table|mod\.lin)",
        "a whole transformer",
    )
    timestep_input = Argument("timestep", 2)
    text_widths: ClassVar = {"text_hidden_dim": ("text_encoder.text_config.hidden_size",)}
    standard_base = BASE
    standard_title = "Krea 2 Raw"
    standard_gigabytes = 35
    standard_denoiser: ClassVar = {}
    standard_vae: ClassVar = {}
    standard_text_parameters = 4_437_815_808  # Qwen3-VL-4B, with what sees
    standard_text_waiting = 34 * 100_930_816 + 24 * 12_596_224
    resolutions = (1024, 768, 512)
    samplers: ClassVar = GIVEN_LEVELS
    guidance_doubles = True
    guidance_none = 0.0
    guidance_batched = False
    # Of training: what T-LoRA published for FLUX.1, the schedule alone; for Krea 2 nothing is.
    defaults: ClassVar = as_published_for_flux(STEPS, GUIDANCE)
    masked_defaults: ClassVar = MASKED_AS_FOR_FLUX
    memory_presets: ClassVar = {
        "24gb": {**SMALL, "quantization": "int8"},
        "16gb": {**SMALL, "quantization": "nf4", "resolution": 768},
        "12gb": {**SMALL, "quantization": "nf4", "resolution": 512},
        "8gb": {**SMALL, "quantization": "nf4", "offload": True, "resolution": 768},
    }
    comfyui = loaded_apart(
        "krea2_raw_bf16.safetensors",
        ("CLIPLoader", {"clip_name": "qwen3vl_4b_bf16.safetensors", "type": "krea2"}),
        "qwen_image_vae.safetensors",
        sampling=flow_sampling(STEPS, GUIDANCE + 1),  # there u + cfg (c - u)
        **flow_times(COMFYUI_SHIFT, logarithm=True),
    )
    hub_tags = ("krea2", "krea2-diffusers")
    licenses: ClassVar = dict.fromkeys((BASE, TURBO), LICENSE)

    def encode_prompts(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        """Return prompt_embeds (B, 512, 12, D) of twelve layers, and a mask (B, 512)."""
        from tlora_cli.families.text_rows import MASK, TEXT

        embeds, mask = pipeline.encode_prompt(list(prompts), max_sequence_length=self.text_tokens)
        return {TEXT: embeds, MASK: mask}

    def encode_negative(self, pipeline: Any, prompt: str) -> Conditioning | None:
        """Return the prompt's embeddings; None of a distilled base, which is not guided.

        Raises:
            UserError: if a prompt is given for such a base.
        """
        if not pipeline.config.get("is_distilled"):
            return self.encode_prompts(pipeline, [prompt])
        if prompt:
            raise UserError(
                "this base takes no negative prompt: it is distilled to draw without guidance",
                where="sampling.negative_prompt",
                do=f"leave it empty, or use an undistilled base, as {BASE} is",
            )
        return None

    def text_room(self, tokenizer: Any, limit: int) -> int:
        """Return the limit without the template's end, for which a prompt is cut."""
        return limit - END

    def training_notes(self, index: Mapping[str, Any], base: str) -> Iterator[str]:
        """Yield that a base is distilled for few steps."""
        if index.get("is_distilled"):
            yield (
                "is distilled to draw in a few steps, and training works against that: what is "
                f"trained on it may draw worse with each step. Train on its base, as {BASE} is, "
                "and draw with `tlora sample --base` of the distilled one"
            )

    def random_conditioning(self, denoiser: Any, batch: int, tokens: int) -> Conditioning:
        """Return random prompt_embeds, all tokens of which count."""
        from tlora_cli.families.shapes import random_like
        from tlora_cli.families.text_rows import MASK, TEXT, mask_of

        config, draw = denoiser.config, random_like(denoiser, batch)
        text = {TEXT: draw(tokens, config.num_text_layers, config.text_hidden_dim)}
        return {**text, MASK: mask_of(text)}

    def inputs(self, noisy: Tensor, conditioning: Conditioning) -> dict[str, Any]:
        """Return the text, its mask, and (0, row, column) of each token, of text (0, 0, 0)."""
        import torch

        from tlora_cli.families.patches import image_ids
        from tlora_cli.families.text_rows import MASK, TEXT

        text, (height, width) = conditioning[TEXT], noisy.shape[-2:]
        places = image_ids(height, width, noisy.new_empty(0, dtype=torch.float32))
        return {
            "encoder_hidden_states": text,
            "encoder_attention_mask": conditioning[MASK],
            "position_ids": torch.cat([places.new_zeros(text.shape[1], 3), places]),
        }

    def sample(
        self,
        pipeline: Any,
        positive: Conditioning,
        negative: Conditioning | None,
        *,
        width: int,
        height: int,
        steps: int,
        guidance: float,
        generators: list[torch.Generator],
    ) -> Tensor:
        """Run Krea2Pipeline on embeddings; its guidance g is that of c + g (c - u).

        A distilled base draws without, whatever is asked for.
        """
        tokens = pipeline(
            **positive,
            **{f"negative_{key}": value for key, value in (negative or {}).items()},
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=0.0 if negative is None else guidance,
            generator=generators,
            max_sequence_length=self.text_tokens,
            output_type="latent",
            return_dict=False,
        )[0]
        return self.unpacked(tokens, width, height)

    def original_names(self, layer_names: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the original model's names, each of which is one layer's."""
        for theirs, ours in BLOCKS:
            place = len(ours.split("."))
            numbers = {n.split(".")[place] for n in layer_names if n.startswith(f"{ours}.")}
            for number in numbers:
                for alias, layer in IN_BLOCK.items():
                    yield f"{theirs}_{number}_{alias}", (f"{ours}.{number}.{layer}",)
        for alias, layer in OUTSIDE_BLOCKS.items():
            yield alias, (layer,)


KREA2 = Krea2()
