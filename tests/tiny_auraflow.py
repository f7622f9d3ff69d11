"""A tiny AuraFlowPipeline with random weights, for the family that a plugin adds."""

from __future__ import annotations

from pathlib import Path

from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler
from tiny_models.clip_and_t5 import make_t5_tokenizer
from tiny_models.vaes import kl_vae
from tiny_models.writing import write_pipeline
from transformers import UMT5Config, UMT5EncoderModel


def write_tiny_auraflow(folder: Path) -> Path:
    """Write the pipeline's folder; the same weights each time."""
    write_pipeline(_tiny_auraflow, folder, seed=0)
    return folder


def _tiny_auraflow() -> AuraFlowPipeline:
    tokenizer = make_t5_tokenizer()
    text = UMT5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4
    )
    return AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(text),
        vae=kl_vae(4, scaling_factor=0.13025),
        transformer=AuraFlowTransformer2DModel(
            sample_size=8,
            num_mmdit_layers=1,
            num_single_dit_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pos_embed_max_size=64,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.73),
    )
