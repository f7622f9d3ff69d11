"""A tiny SDXL."""

from __future__ import annotations

from diffusers import (
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tiny_models.clip_and_t5 import END, clip_config, clip_tokenizer
from tiny_models.parts import amplify
from tiny_models.vaes import kl_vae


def make() -> DiffusionPipeline:
    """Make the pipeline of SDXL 1.0 with few and narrow layers."""
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 48),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),  # for SDXL diffusers reads this as the number of heads
        cross_attention_dim=32 + 48,  # both text encoders
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=48 + 6 * 8,  # pooled text and six sizes
        norm_num_groups=8,
    )
    amplify(unet, ".attn2.to_v")
    return StableDiffusionXLPipeline(
        vae=kl_vae(4, scaling_factor=0.13025),
        text_encoder=CLIPTextModel(clip_config("quick_gelu")),
        text_encoder_2=CLIPTextModelWithProjection(clip_config("gelu", width=48)),
        tokenizer=clip_tokenizer(END),
        tokenizer_2=clip_tokenizer("!"),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            interpolation_type="linear",
            num_train_timesteps=1000,
            prediction_type="epsilon",
            steps_offset=1,
            timestep_spacing="leading",
            use_karras_sigmas=False,
        ),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
