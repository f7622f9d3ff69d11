"""A tiny FLUX.2 klein."""

from __future__ import annotations

from diffusers import DiffusionPipeline, Flux2KleinPipeline, Flux2Transformer2DModel
from transformers import Qwen3ForCausalLM

from tiny_models.parts import amplify, moving_shift
from tiny_models.qwen import qwen_config, qwen_tokenizer
from tiny_models.vaes import vae_with_norm


def make() -> DiffusionPipeline:
    """Make the pipeline of FLUX.2 klein base with few and narrow layers.

    The language model has as many layers as are read: states 9, 18 and 27 are its text.
    """
    tokenizer = qwen_tokenizer()
    return Flux2KleinPipeline(
        scheduler=moving_shift(),
        vae=vae_with_norm(),
        text_encoder=Qwen3ForCausalLM(qwen_config(tokenizer, layers=28)).eval(),
        tokenizer=tokenizer,
        transformer=flux2_transformer(3 * 16, guidance_embeds=False),
    )


def flux2_transformer(width: int, *, guidance_embeds: bool) -> Flux2Transformer2DModel:
    """Make a FLUX.2 transformer of few and narrow layers, for texts of a width."""
    transformer = Flux2Transformer2DModel(
        in_channels=128,  # 32 latent channels of 2 x 2 patches
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=width,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )
    amplify(transformer, ".attn.add_v_proj")
    return transformer
