"""The models of the built-in world: the true classes of diffusers and transformers, made small."""

from __future__ import annotations

from dataclasses import dataclass
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
"""Tokens of every text, for both tokenizers; the longest caption has 37."""
TEXT_WIDTH = 64
"""Width of each CLIP text encoder; T5's is twice that."""
CHANNELS = {"sdxl": 4, "flux": 8}
"""Base -> channels of its latents, 16 x 16 places of 4 x 4 pixels. FLUX packs 2 x 2 into one."""


def vae(base: str, **options: Any) -> AutoencoderKL:
    """Return a base's VAE: 64 x 64 pixels become 4 (sdxl) or 8 (flux) x 16 x 16 latents."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=CHANNELS[base],
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
        **options,
    )


@dataclass(frozen=True)
class Design:
    """Width and depth of toy-sdxl's UNet is, from the pixels' side in.

    Attributes:
        widths: channels at 16 x 16, 8 x 8 and 4 x 4 places; the first level has no attention.
        layers: transformer blocks in a row at each level; the first counts for nothing.
        head: width of an attention head.
    """

    widths: tuple[int, int, int]
    layers: tuple[int, int, int]
    head: int = 32


DESIGNS = {
    "deep": Design((32, 96, 160), (1, 1, 2)),
    "wide": Design((32, 128, 128), (1, 2, 2)),
}
"""Designs that were tried against each other for the same time; `deep` as in SDXL has most of its
parameters at the bottom, `wide` has them where places are finer."""


def unet(design: Design) -> UNet2DConditionModel:
    """Return SDXL's UNet, made small: three levels, the first without attention."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=CHANNELS["sdxl"],
        out_channels=CHANNELS["sdxl"],
        block_out_channels=design.widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=design.layers,
        # For SDXL diffusers reads this as the number of heads.
        attention_head_dim=tuple(width // design.head for width in design.widths),
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
        in_channels=4 * CHANNELS["flux"],
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
