"""A tiny Krea 2."""

from __future__ import annotations

from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Krea2Pipeline,
    Krea2Transformer2DModel,
)
from transformers import Qwen3VLModel

from tiny_models.parts import amplify
from tiny_models.qwen import QWEN_WORDS, qwen3_vl_config, qwen_tokenizer
from tiny_models.vaes import vae_of_films


def make() -> DiffusionPipeline:
    """Make the pipeline of Krea 2 Raw with few and narrow layers.

    The language model has as many layers as are read: every third state of 36 is its text.
    """
    tokenizer = qwen_tokenizer(QWEN_WORDS)
    transformer = Krea2Transformer2DModel(
        in_channels=64,  # 16 latent channels of 2 x 2 patches
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        timestep_embed_dim=32,
        text_hidden_dim=16,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=32,
        axes_dims_rope=(4, 6, 6),
    )
    for layer in ("projector", ".attn.to_v", ".attn.to_out.0"):
        amplify(transformer, layer)
    return Krea2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=1000,
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=1.15,
            base_image_seq_len=256,
            max_image_seq_len=6400,
        ),
        vae=vae_of_films(),
        text_encoder=Qwen3VLModel(qwen3_vl_config(tokenizer, layers=36)).eval(),
        tokenizer=tokenizer,
        transformer=transformer,
    )
