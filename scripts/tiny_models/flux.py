"""A tiny FLUX.1."""

from __future__ import annotations

from diffusers import DiffusionPipeline, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel

from tiny_models.clip_and_t5 import END, clip_config, clip_tokenizer, make_t5_tokenizer, t5_encoder
from tiny_models.parts import amplify, moving_shift
from tiny_models.vaes import vae_of_flux


def make() -> DiffusionPipeline:
    """Make the pipeline of FLUX.1-dev with few and narrow layers."""
    t5_tokenizer = make_t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=64,  # 16 latent channels of 2 x 2 patches
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    amplify(transformer, ".attn.add_v_proj")
    return FluxPipeline(
        vae=vae_of_flux(),
        text_encoder=CLIPTextModel(clip_config("quick_gelu")),
        text_encoder_2=t5_encoder(t5_tokenizer, width=32),
        tokenizer=clip_tokenizer(END),
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
        scheduler=moving_shift(),
    )
