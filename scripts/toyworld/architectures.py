"""The models of the built-in world: the true classes of diffusers and transformers, made small."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

TEXT_LENGTH = 40
"""Tokens of every text, for both tokenizers; the longest caption has 31."""
TEXT_WIDTH = 64
"""Width of each CLIP text encoder; T5's is twice that."""
CHANNELS = {4: 8, 8: 32}
"""Factor of a VAE -> channels of its latents. FLUX packs 2 x 2 places into one; SDXL does not, so
its VAE does. Either way the denoiser sees 8 x 8 places with 32 numbers each."""
SDXL_FACTOR, FLUX_FACTOR = 8, 4


def vae(factor: int, **options: Any) -> AutoencoderKL:
    """Return a VAE: 64 x 64 pixels become 8 x 16 x 16 latents (factor 4) or 32 x 8 x 8 (8)."""
    widths = (16, 32, 64) if factor == 4 else (16, 32, 64, 128)
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=1,
        latent_channels=CHANNELS[factor],
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
        **options,
    )


def unet() -> UNet2DConditionModel:
    """Return SDXL's UNet with two levels; attention is 128 wide, on 8 x 8 and 4 x 4 places.

    The upper level has attention, too: where only the lower one had, adapters of the attention
    could not draw details finer than its places, even when trained in full.
    """
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=CHANNELS[SDXL_FACTOR],
        out_channels=CHANNELS[SDXL_FACTOR],
        block_out_channels=(128, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        transformer_layers_per_block=(2, 1),
        attention_head_dim=(4, 4),  # for SDXL diffusers reads this as the number of heads
        cross_attention_dim=2 * TEXT_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 8,
        norm_num_groups=16,
    )


def sdxl_scheduler() -> EulerDiscreteScheduler:
    """Return SDXL's noise schedule with zero terminal SNR, v prediction and trailing steps.

    SDXL's own schedule still shows the picture's mean at its noisiest step, which sampling from
    pure noise can't know: colors and backgrounds come out wrong (Lin et al. 2023).
    """
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def transformer() -> FluxTransformer2DModel:
    """Return FLUX's transformer, 128 wide, with two double and four single blocks."""
    return FluxTransformer2DModel(
        in_channels=4 * CHANNELS[FLUX_FACTOR],
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=2 * TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )


def flux_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Return FLUX's scheduler with its shift for few tokens."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)


def text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return the first text encoder."""
    return CLIPTextModel(_clip(tokenizer, layers=3, activation="quick_gelu"))


def text_encoder_2(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Return SDXL's second text encoder."""
    return CLIPTextModelWithProjection(_clip(tokenizer, layers=3, activation="gelu"))


def t5_encoder(tokenizer: T5TokenizerFast) -> T5EncoderModel:
    """Return FLUX's second text encoder."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=2 * TEXT_WIDTH,
            d_kv=32,
            d_ff=4 * TEXT_WIDTH,
            num_layers=3,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


def _clip(tokenizer: CLIPTokenizer, layers: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=TEXT_LENGTH,
        hidden_act=activation,
        initializer_factor=1.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
