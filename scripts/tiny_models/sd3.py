"""A tiny Stable Diffusion 3.5."""

from __future__ import annotations

from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextModelWithProjection

from tiny_models.clip_and_t5 import END, clip_config, clip_tokenizer, make_t5_tokenizer, t5_encoder
from tiny_models.parts import amplify
from tiny_models.vaes import kl_vae


def make() -> DiffusionPipeline:
    """Make the pipeline of Stable Diffusion 3.5 medium with few and narrow layers."""
    t5_tokenizer = make_t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=16,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=96,
        caption_projection_dim=32,
        pooled_projection_dim=32 + 48,
        pos_embed_max_size=16,
        dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    )
    amplify(transformer, ".attn.add_v_proj")
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
        vae=kl_vae(
            16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModelWithProjection(clip_config("quick_gelu")),
        tokenizer=clip_tokenizer(END),
        text_encoder_2=CLIPTextModelWithProjection(clip_config("gelu", width=48)),
        tokenizer_2=clip_tokenizer("!"),
        text_encoder_3=t5_encoder(t5_tokenizer, width=96),  # no narrower than both others
        tokenizer_3=t5_tokenizer,
    )
