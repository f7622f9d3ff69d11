"""FLUX.1 (Black Forest Labs 2024): a rectified-flow transformer over packed latents.

Public facts of black-forest-labs/FLUX.1-dev (config.json of each part).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tlora_cli.families.bfl_names import names_of_layers
from tlora_cli.families.comfyui_parts import flow_sampling, flow_times, loaded_apart
from tlora_cli.families.facts import (
    KL_VAE,
    Argument,
    Conditioning,
    Kohya,
    License,
    TextEncoder,
)
from tlora_cli.families.rectified_flow import RectifiedFlow, as_published_for_flux

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BASE = "black-forest-labs/FLUX.1-dev"
STEPS, GUIDANCE = 28, 3.5  # published settings of sampling (T-LoRA, section 5)
COMFYUI_SHIFT = 1.15
"""ComfyUI's default shift of FLUX.1-dev."""
SMALL = {"gradient_checkpointing": True}

DOUBLE = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_proj": ("attn.to_out.0",),
    "img_mlp_0": ("ff.net.0.proj",),
    "img_mlp_2": ("ff.net.2",),
    "img_mod_lin": ("norm1.linear",),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn_proj": ("attn.to_add_out",),
    "txt_mlp_0": ("ff_context.net.0.proj",),
    "txt_mlp_2": ("ff_context.net.2",),
    "txt_mod_lin": ("norm1_context.linear",),
}
SINGLE = {
    "attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),  # a part of linear1, in XLabs' files
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_lin": ("norm.linear",),
}
BLOCKS = (
    ("double_blocks", "transformer_blocks", DOUBLE),
    ("single_blocks", "single_transformer_blocks", SINGLE),
)
"""Blocks of the original model, of diffusers, and name in the one -> layers in the other."""
OUTSIDE_BLOCKS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in_in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in_out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in_in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in_out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in_in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in_out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer_adaLN_modulation_1": "norm_out.linear",
    "final_layer_linear": "proj_out",
}


class Flux(RectifiedFlow):
    """A transformer of double and single blocks, with CLIP and T5 text."""

    name = "flux"
    title = "FLUX"
    denoiser_words = "a FluxTransformer2DModel"
    denoiser = "transformer"
    denoiser_class = "diffusers:FluxTransformer2DModel"
    pipeline_class = "diffusers:FluxPipeline"
    text_encoders = (
        TextEncoder("text_encoder", "tokenizer", "clip_l"),
        TextEncoder("text_encoder_2", "tokenizer_2", "t5xxl"),
    )
    text_tokens = 512  # of T5, as published
    text_tokenizer = "tokenizer_2"
    single_file_is_whole = False
    single_file_keys = ("double_blocks.", "single_blocks.")
    targets = (
        r"transformer_blocks\.\d+\.attn\.(to_(q|k|v|out\.0)|add_(q|k|v)_proj)"
        r"|single_transformer_blocks\.\d+\.attn\.to_(q|k|v)"
    )
    # The modulations, too, as in kohya's sd-scripts and ai-toolkit; there is no convolution.
    named_targets: ClassVar = dict.fromkeys(("linear", "all"), r"(single_)?transformer_blocks\..+")
    shared_input = r"(.*\.attn)\.(to)_[qkv]|(.*\.attn)\.(add)_[qkv]_proj"
    layer_prefixes = tuple(side for blocks in BLOCKS for side in blocks[:2])
    # FLUX.2's blocks are called alike: one layer for all that a single block reads, SwiGLU.
    foreign_layers = (
        r"to_qkv_mlp_proj|(double|single)_stream_modulation|[._]ff(_context)?[._]linear_(in|out)"
        r"|single_transformer_blocks[._]\d+[._]attn[._]to_out|time_guidance_embed"
        # Qwen-Image's, Stable Diffusion 3's and Krea 2's; of double blocks FLUX.1 has 19.
        r"|transformer_blocks[._]\d+[._]((img|txt)_(mod|mlp)|attn2)[._]|[._]attn[._]to_gate"
        r"|text_fusion"
        r"|(?<!single_)transformer_blocks[._](19|[2-9]\d)[._]"
    )
    row_shares: ClassVar = {"proj_mlp": 4}
    turned_layers = ("final_layer_adaLN_modulation_1",)
    whole_model = (
        r"^(double|single|transformer|single_transformer)_blocks\.\d+\.",
        "a whole transformer",
    )
    latent_patch = 2
    timestep_input = Argument("timestep", 3)
    latent_input = Argument("hidden_states", 0)
    text_widths: ClassVar = {
        "joint_attention_dim": ("text_encoder_2.d_model",),
        "pooled_projection_dim": ("text_encoder.hidden_size",),
    }
    standard_base = BASE
    standard_title = "FLUX.1-dev"
    standard_gigabytes = 34
    standard_denoiser: ClassVar = {
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": True,
    }
    standard_vae: ClassVar = {
        **KL_VAE,
        "latent_channels": 16,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    standard_text_parameters = 123_060_480 + 4_762_310_656  # CLIP L and T5-XXL's encoder
    standard_text_waiting = 10 * 7_087_872 + 22 * 192_946_176 - 2048
    resolutions = (1024, 768, 512)
    guidance_doubles = False
    no_negative_prompt = "FLUX.1-dev takes no negative prompt: guidance is distilled into it"
    defaults: ClassVar = as_published_for_flux(STEPS, GUIDANCE)
    masked_defaults: ClassVar = {"adapter": {"min_rank": 1}}
    memory_presets: ClassVar = {
        "24gb": {**SMALL, "quantization": "int8"},
        "16gb": {**SMALL, "quantization": "nf4"},
        "12gb": {**SMALL, "quantization": "nf4", "resolution": 768},
        "8gb": {**SMALL, "quantization": "nf4", "offload": True},
    }
    kohya = Kohya("networks.lora_flux", "flux1")
    comfyui = loaded_apart(
        "flux1-dev.safetensors",
        ("DualCLIPLoader", {
            "clip_name1": "t5xxl_fp16.safetensors", "clip_name2": "clip_l.safetensors",
            "type": "flux",
        }),
        "ae.safetensors",
        sampling=flow_sampling(STEPS, 1.0),
        guidance=("FluxGuidance", {"guidance": GUIDANCE}),
        zero_negative=True,
        **flow_times(COMFYUI_SHIFT, logarithm=True),
    )  # fmt: skip
    architecture = "flux-1-dev/lora"
    hub_tags = ("flux", "flux-diffusers")
    licenses: ClassVar = {
        BASE: License(
            "other",
            "flux-1-dev-non-commercial-license",
            f"https://huggingface.co/{BASE}/blob/main/LICENSE.md",
        ),
        "black-forest-labs/FLUX.1-schnell": License("apache-2.0"),
    }

    def encode_prompts(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        """Return T5's prompt_embeds (B, 512, D) and CLIP's pooled_projections (B, P)."""
        length = min(self.text_tokens, pipeline.tokenizer_2.model_max_length)
        embeds, pooled, _ = pipeline.encode_prompt(list(prompts), None, max_sequence_length=length)
        return {"prompt_embeds": embeds, "pooled_projections": pooled}

    def random_conditioning(self, denoiser: Any, batch: int, tokens: int) -> Conditioning:
        """Return random prompt_embeds and pooled_projections."""
        from tlora_cli.families.shapes import random_like

        config, draw = denoiser.config, random_like(denoiser, batch)
        return {
            "prompt_embeds": draw(tokens, config.joint_attention_dim),
            "pooled_projections": draw(config.pooled_projection_dim),
        }

    def latent_channels(self, denoiser: Any) -> int:
        """Return the channels of a latent; the transformer is given patches of 2 x 2."""
        return super().latent_channels(denoiser) // self.latent_patch**2

    def predict(
        self,
        denoiser: nn.Module,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        guidance: float,
    ) -> Tensor:
        """Call the transformer on packed latents; it takes t / 1000."""
        import torch

        from tlora_cli.families.patches import image_ids, pack, unpack

        height, width = noisy.shape[-2:]
        text = conditioning["prompt_embeds"]
        config: Any = denoiser.config
        guided = config.guidance_embeds
        tokens: Tensor = denoiser(
            hidden_states=pack(noisy),
            encoder_hidden_states=text,
            pooled_projections=conditioning["pooled_projections"],
            timestep=self.told(t),
            img_ids=image_ids(height, width, noisy),
            txt_ids=torch.zeros(text.shape[1], 3, device=text.device, dtype=text.dtype),
            guidance=torch.full_like(t, guidance, dtype=torch.float32) if guided else None,
            return_dict=False,
        )[0]
        return unpack(tokens, height, width)

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
        """Run FluxPipeline on embeddings; FLUX.1-dev is guidance-distilled, so no negative."""
        from tlora_cli.families.patches import unpack

        tokens = pipeline(
            prompt_embeds=positive["prompt_embeds"],
            pooled_prompt_embeds=positive["pooled_projections"],
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            max_sequence_length=self.text_tokens,
            output_type="latent",
            return_dict=False,
        )[0]
        unit = 2 * pipeline.vae_scale_factor
        return unpack(tokens, 2 * (height // unit), 2 * (width // unit))

    def original_names(self, layer_names: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the original model's names, where queries, keys and values are one layer."""
        yield from names_of_layers(BLOCKS, OUTSIDE_BLOCKS, layer_names)


FLUX = Flux()
