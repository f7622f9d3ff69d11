"""A tiny Z-Image."""

from __future__ import annotations

import torch
from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import Qwen3Model

from tiny_models.parts import amplify
from tiny_models.qwen import qwen_config, qwen_tokenizer
from tiny_models.vaes import vae_of_flux


def make() -> DiffusionPipeline:
    """Make the pipeline of Z-Image with few and narrow layers."""
    tokenizer = qwen_tokenizer()
    transformer = ZImageTransformer2DModel(
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 32, 32],
    )
    with torch.no_grad():  # which are zeros before training
        for filling in (transformer.x_pad_token, transformer.cap_pad_token):
            filling.normal_()
    amplify(transformer, "cap_embedder.1")
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=6.0),
        vae=vae_of_flux(),
        text_encoder=Qwen3Model(qwen_config(tokenizer, layers=3)).eval(),
        tokenizer=tokenizer,
        transformer=transformer,
    )
