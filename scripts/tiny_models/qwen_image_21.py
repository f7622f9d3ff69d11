"""A tiny Qwen-Image 2.1."""

from __future__ import annotations

from diffusers import (
    AutoencoderKLQwenImage21,
    DiffusionPipeline,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from transformers import Qwen3VLForConditionalGeneration

from tiny_models.parts import amplify, moving_shift
from tiny_models.qwen import MARKS_OF_SIGHT, QWEN_TEMPLATE_OF_PARTS, qwen3_vl_config, qwen_tokenizer
from tiny_models.vaes import spread_films
from tlora_cli.families.text_processor import TextProcessor


def make() -> DiffusionPipeline:
    """Make the pipeline of Qwen-Image 2.1 with few and narrow layers."""
    tokenizer = qwen_tokenizer(marks=MARKS_OF_SIGHT, template=QWEN_TEMPLATE_OF_PARTS)
    transformer = QwenImage21Transformer2DModel(
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=16,
        axes_dims_rope=(4, 6, 6),
    )
    for layer in ("txt_in.out_layer", "modulation.1", ".attn.to_out.0"):
        amplify(transformer, layer)
    amplify(transformer, ".attn.to_v")
    vae = AutoencoderKLQwenImage21(base_dim=4, decoder_base_dim=4, num_res_blocks=1)
    return QwenImage21Pipeline(
        scheduler=moving_shift(),
        vae=spread_films(vae),
        text_encoder=Qwen3VLForConditionalGeneration(qwen3_vl_config(tokenizer, layers=2)).eval(),
        processor=TextProcessor(tokenizer, chat_template=tokenizer.chat_template),
        transformer=transformer,
    )
