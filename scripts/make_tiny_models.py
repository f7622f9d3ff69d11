#!/usr/bin/env python3
"""Write tiny pipelines of every family with random weights, in the diffusers folder format.

    python scripts/make_tiny_models.py OUT [--family NAME|all] [--seed 0]

They have every part of the real models (text encoders, tokenizers, VAE, denoiser, scheduler) in a
few megabytes, need no download, and draw noise: the weights are random. The demo and the
tests train on them, so that everything but the quality of the pictures is checked on any computer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

from tlora_cli.families.text_processor import TextProcessor
from tlora_cli.families.vae import framed
from tlora_cli.families.vae_config import channels_of

TEXT_GAIN = 4.0
"""Gain of the layers that bring in the text: one word of 77 would hardly show otherwise."""
CLIP_LENGTH = 77
T5_LENGTH = 512
CLIP_MERGES = (("t", "h"), ("th", "e</w>"), ("i", "n"), ("in", "g</w>"), ("a", "n"))
T5_PIECES = ("▁a", "▁the", "▁of", "▁in", "▁on", "▁with", "▁photo", "the", "ing", "er", "an", "in")
NOTHING_NAMED: Mapping[str, str] = {}
START, END = "<|startoftext|>", "<|endoftext|>"
QWEN_LENGTH = 512
QWEN_MERGES = (("t", "h"), ("i", "n"), ("in", "g"), ("a", "n"), ("e", "r"))
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Its prompt stands where that of Qwen3 does; there is no empty thought behind it."""
QWEN_TEMPLATE_OF_PARTS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
)
"""The same of Qwen3-VL, whose messages have parts."""
MARKS_OF_SIGHT = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_WORDS = (
    *("system", "user", "assistant", "Describe", "the", "image", "by", "detailing", "color"),
    *("shape", "size", "texture", "quantity", "text", "spatial", "relationships", "of"),
    *("objects", "and", "background"),
)
"""Words around a prompt of Qwen-Image, each a token of its own there and here: the pipeline leaves
out as many tokens as Qwen's own tokenizer makes of them, 34."""


def write_tiny_sdxl(folder: Path, seed: int = 0) -> None:
    """Write a StableDiffusionXLPipeline folder, for pictures of 64 to 128 pixels.

    Args:
        folder: the new folder; it may exist if it is empty.
        seed: seed of the weights; the same seed gives the same bytes.

    Raises:
        FileExistsError: if `folder` holds anything.
    """
    _write(_tiny_sdxl, Path(folder), seed)


def write_tiny_flux(folder: Path, seed: int = 0) -> None:
    """Write a FluxPipeline folder, for pictures of 64 to 128 pixels.

    Args:
        folder: the new folder; it may exist if it is empty.
        seed: seed of the weights; the same seed gives the same bytes.

    Raises:
        FileExistsError: if `folder` holds anything.
    """
    _write(_tiny_flux, Path(folder), seed)


def write_tiny_flux2(folder: Path, seed: int = 0) -> None:
    """Write a Flux2KleinPipeline folder, for pictures of 64 to 128 pixels.

    Args:
        folder: the new folder; it may exist if it is empty.
        seed: seed of the weights; the same seed gives the same bytes.

    Raises:
        FileExistsError: if `folder` holds anything.
    """
    _write(_tiny_flux2, Path(folder), seed)


def write_tiny_z_image(folder: Path, seed: int = 0) -> None:
    """Write a ZImagePipeline folder, for pictures of 64 to 128 pixels.

    Args:
        folder: the new folder; it may exist if it is empty.
        seed: seed of the weights; the same seed gives the same bytes.

    Raises:
        FileExistsError: if `folder` holds anything.
    """
    _write(_tiny_z_image, Path(folder), seed)


def write_tiny_qwen_image(folder: Path, seed: int = 0) -> None:
    """Write a QwenImagePipeline folder, for pictures of 64 to 128 pixels.

    Args:
        folder: the new folder; it may exist if it is empty.
        seed: seed of the weights; the same seed gives the same bytes.

    Raises:
        FileExistsError: if `folder` holds anything.
    """
    _write(_tiny_qwen_image, Path(folder), seed)


def write_tiny_sd3(folder: Path, seed: int = 0) -> None:
    """Write a StableDiffusion3Pipeline folder, for pictures of 64 to 128 pixels.

    Args:
        folder: the new folder; it may exist if it is empty.
        seed: seed of the weights; the same seed gives the same bytes.

    Raises:
        FileExistsError: if `folder` holds anything.
    """
    _write(_tiny_sd3, Path(folder), seed)


def write_tiny_krea2(folder: Path, seed: int = 0) -> None:
    """Write a Krea2Pipeline folder, for pictures of 64 to 128 pixels.

    Args:
        folder: the new folder; it may exist if it is empty.
        seed: seed of the weights; the same seed gives the same bytes.

    Raises:
        FileExistsError: if `folder` holds anything.
    """
    _write(_tiny_krea2, Path(folder), seed)


def write_tiny_qwen_image_21(folder: Path, seed: int = 0) -> None:
    """Write a QwenImage21Pipeline folder, for pictures of 64 to 128 pixels.

    Its processor reads texts alone: one that also reads pictures needs one more package.

    Args:
        folder: the new folder; it may exist if it is empty.
        seed: seed of the weights; the same seed gives the same bytes.

    Raises:
        FileExistsError: if `folder` holds anything.
    """
    _write(_tiny_qwen_image_21, Path(folder), seed, {"processor": "Qwen3VLProcessor"})


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "sdxl": write_tiny_sdxl,
    "flux": write_tiny_flux,
    "flux2": write_tiny_flux2,
    "z_image": write_tiny_z_image,
    "sd3": write_tiny_sd3,
    "qwen_image": write_tiny_qwen_image,
    "krea2": write_tiny_krea2,
    "qwen_image_21": write_tiny_qwen_image_21,
}


def _tiny_sdxl() -> DiffusionPipeline:
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
    _amplify(unet, ".attn2.to_v")
    return StableDiffusionXLPipeline(
        vae=_vae(4, scaling_factor=0.13025),
        text_encoder=CLIPTextModel(_clip_config("quick_gelu")),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config("gelu", width=48)),
        tokenizer=_clip_tokenizer(END),
        tokenizer_2=_clip_tokenizer("!"),
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


def _tiny_flux() -> DiffusionPipeline:
    """Make the pipeline of FLUX.1-dev with few and narrow layers."""
    t5_tokenizer = _t5_tokenizer()
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
    _amplify(transformer, ".attn.add_v_proj")
    return FluxPipeline(
        vae=_vae_of_flux(),
        text_encoder=CLIPTextModel(_clip_config("quick_gelu")),
        text_encoder_2=_t5(t5_tokenizer, width=32),
        tokenizer=_clip_tokenizer(END),
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
        scheduler=_moving_shift(),
    )


def _tiny_flux2() -> DiffusionPipeline:
    """Make the pipeline of FLUX.2 klein base with few and narrow layers.

    The language model has as many layers as are read: states 9, 18 and 27 are its text.
    """
    tokenizer = _qwen_tokenizer()
    return Flux2KleinPipeline(
        scheduler=_moving_shift(),
        vae=_vae_with_norm(),
        text_encoder=Qwen3ForCausalLM(_qwen_config(tokenizer, layers=28)).eval(),
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
    _amplify(transformer, ".attn.add_v_proj")
    return transformer


def _tiny_z_image() -> DiffusionPipeline:
    """Make the pipeline of Z-Image with few and narrow layers."""
    tokenizer = _qwen_tokenizer()
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
    _amplify(transformer, "cap_embedder.1")
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=6.0),
        vae=_vae_of_flux(),
        text_encoder=Qwen3Model(_qwen_config(tokenizer, layers=3)).eval(),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def _tiny_qwen_image() -> DiffusionPipeline:
    """Make the pipeline of Qwen-Image with few and narrow layers."""
    tokenizer = _qwen_tokenizer(QWEN_WORDS)
    transformer = QwenImageTransformer2DModel(
        in_channels=64,  # 16 latent channels of 2 x 2 patches
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6),
    )
    _amplify(transformer, ".attn.add_v_proj")
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.3,
        "max_position_embeddings": 2 * QWEN_LENGTH,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    sight = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 16,
        "fullatt_block_indexes": [0],
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=sight, **_marks_of_sight(tokenizer))
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=1000,
            shift=1.0,
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=0.9,
            base_image_seq_len=256,
            max_image_seq_len=8192,
            shift_terminal=0.02,
        ),
        vae=_vae_of_films(),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def _tiny_sd3() -> DiffusionPipeline:
    """Make the pipeline of Stable Diffusion 3.5 medium with few and narrow layers."""
    t5_tokenizer = _t5_tokenizer()
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
    _amplify(transformer, ".attn.add_v_proj")
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
        vae=_vae(
            16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModelWithProjection(_clip_config("quick_gelu")),
        tokenizer=_clip_tokenizer(END),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config("gelu", width=48)),
        tokenizer_2=_clip_tokenizer("!"),
        text_encoder_3=_t5(t5_tokenizer, width=96),  # no narrower than both others
        tokenizer_3=t5_tokenizer,
    )


def _tiny_krea2() -> DiffusionPipeline:
    """Make the pipeline of Krea 2 Raw with few and narrow layers.

    The language model has as many layers as are read: every third state of 36 is its text.
    """
    tokenizer = _qwen_tokenizer(QWEN_WORDS)
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
        _amplify(transformer, layer)
    return Krea2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=1000,
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=1.15,
            base_image_seq_len=256,
            max_image_seq_len=6400,
        ),
        vae=_vae_of_films(),
        text_encoder=Qwen3VLModel(_qwen3_vl_config(tokenizer, layers=36)).eval(),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def _tiny_qwen_image_21() -> DiffusionPipeline:
    """Make the pipeline of Qwen-Image 2.1 with few and narrow layers."""
    tokenizer = _qwen_tokenizer(marks=MARKS_OF_SIGHT, template=QWEN_TEMPLATE_OF_PARTS)
    transformer = QwenImage21Transformer2DModel(
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=16,
        axes_dims_rope=(4, 6, 6),
    )
    for layer in ("txt_in.out_layer", "modulation.1", ".attn.to_out.0"):
        _amplify(transformer, layer)
    _amplify(transformer, ".attn.to_v")
    vae = AutoencoderKLQwenImage21(base_dim=4, decoder_base_dim=4, num_res_blocks=1)
    return QwenImage21Pipeline(
        scheduler=_moving_shift(),
        vae=_spread_films(vae),
        text_encoder=Qwen3VLForConditionalGeneration(_qwen3_vl_config(tokenizer, layers=2)).eval(),
        processor=TextProcessor(tokenizer, chat_template=tokenizer.chat_template),
        transformer=transformer,
    )


def _qwen3_vl_config(tokenizer: Qwen2Tokenizer, layers: int) -> Qwen3VLConfig:
    """Return the settings of a language model that sees, for a tokenizer."""
    text = _qwen_config(tokenizer, layers).to_dict()
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    }
    text["max_position_embeddings"] = 2 * QWEN_LENGTH
    sight = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 16,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    return Qwen3VLConfig(text_config=text, vision_config=sight, **_marks_of_sight(tokenizer))


def _marks_of_sight(tokenizer: Qwen2Tokenizer) -> dict[str, int]:
    """Return the tokens that stand for pictures, which no prompt has, by their settings."""
    numbers = tokenizer.get_vocab()
    names = ("image_token_id", "video_token_id", "vision_start_token_id")
    return {
        **dict.fromkeys(names, numbers["<|im_start|>"]),
        "vision_end_token_id": numbers["<|im_end|>"],
    }


def _moving_shift() -> FlowMatchEulerDiscreteScheduler:
    """Make the scheduler of FLUX.1-dev, which FLUX.2 has as well."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


def _amplify(denoiser: torch.nn.Module, ending: str) -> None:
    """Scale the weights of the layers whose names end so."""
    with torch.no_grad():
        for name, module in denoiser.named_modules():
            if name.endswith(ending):
                module.weight *= TEXT_GAIN


VAE_LAYERS: dict[str, Any] = {
    "block_out_channels": (8, 16, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 64,
}


VAE = TypeVar(
    "VAE", AutoencoderKL, AutoencoderKLFlux2, AutoencoderKLQwenImage, AutoencoderKLQwenImage21
)


def _vae(latent_channels: int, **options: Any) -> AutoencoderKL:
    """Make a VAE of factor 8 whose latents and pictures have a natural spread."""
    vae = AutoencoderKL(latent_channels=latent_channels, **VAE_LAYERS, **options).eval()
    return _spread(vae, vae.config.shift_factor or 0.0, vae.config.scaling_factor)


def _vae_of_flux() -> AutoencoderKL:
    """Make FLUX.1's, which other families have as well."""
    return _vae(
        16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _vae_with_norm() -> AutoencoderKLFlux2:
    """Make FLUX.2's, whose batch norm has a mean and a variance for each channel of a patch."""
    vae = AutoencoderKLFlux2(latent_channels=32, **VAE_LAYERS).eval()
    with torch.no_grad():
        vae.bn.running_mean.copy_(0.3 * torch.randn(vae.bn.num_features))
        vae.bn.running_var.copy_(2.0 + torch.rand(vae.bn.num_features))
    return _spread(vae, 0.0, 0.6)


def _vae_of_films() -> AutoencoderKLQwenImage:
    """Make Qwen-Image's, with its own means and deviations for each channel."""
    return _spread_films(AutoencoderKLQwenImage(base_dim=4, num_res_blocks=1))


def _spread_films(vae: VAE) -> VAE:
    """Give a VAE of films a spread by its own means and deviations for each channel."""
    vae = vae.eval()
    mean, std = (torch.tensor(vae.config[f"latents_{name}"]) for name in ("mean", "std"))
    return _spread(vae, mean, 1 / std)


def _spread(vae: VAE, shift: float | torch.Tensor, scale: float | torch.Tensor) -> VAE:
    """Give a VAE's latents and pictures a natural spread.

    Its random layers give nearly constant outputs and a posterior that is all noise, so the last
    layer of each half is scaled to the spread measured on a picture of noise, and the posterior is
    made narrow.
    """
    latent_channels = channels_of(vae.config)
    films = "temperal_downsample" in vae.config

    def of_channels(values: Any) -> Any:
        """Give a number for each channel the shape of a picture's, or a film's."""
        shaped = isinstance(values, torch.Tensor) and values.dim() == 1
        return values.view(1, -1, *(1,) * (3 if films else 2)) if shaped else values

    with torch.no_grad():
        for mix in (vae.quant_conv, vae.post_quant_conv):
            if mix is not None:
                same = torch.eye(mix.in_channels)[:, :, None, None]
                mix.weight.copy_(framed(same, mix.weight.dim() == 5))
                mix.bias.zero_()
        rough = torch.rand(1, vae.encoder.conv_in.in_channels, 8, 8) * 2 - 1
        smooth = torch.nn.functional.interpolate(rough, size=(64, 64), mode="bicubic")
        means, _ = vae.encoder(framed(smooth, films)).chunk(2, dim=1)
        last = vae.encoder.conv_out
        gain = 1 / (means.std() * scale)
        each = gain.view(-1, *(1,) * (last.weight.dim() - 1)) if gain.dim() else gain
        last.weight[:latent_channels] *= each
        last.bias[:latent_channels] = shift - gain * means.mean()
        last.weight[latent_channels:] *= 0.1
        last.bias[latent_channels:] = -6.0  # logarithm of the posterior's variance
        last = vae.decoder.conv_out
        latents = framed(torch.randn(1, latent_channels, 8, 8), films) / of_channels(scale)
        options: dict[str, Any] = {}
        if isinstance(vae, AutoencoderKLQwenImage21):  # a first picture, or it makes two of one
            vae.clear_cache()
            options = {"feat_cache": vae._feat_map, "feat_idx": [0], "first_chunk": True}
        pixels = vae.decoder(latents + of_channels(shift), **options)
        last.weight *= 0.5 / pixels.std()
        last.bias.zero_()
    return vae


def _clip_config(activation: str, width: int = 32) -> CLIPTextConfig:
    """Return the settings of a text encoder for `_clip_tokenizer`.

    SDXL's two must differ in width: diffusers tells them apart by it in a single file.
    """
    vocabulary = _clip_vocabulary()
    return CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CLIP_LENGTH,
        hidden_act=activation,
        initializer_factor=1.0,
        bos_token_id=vocabulary[START],
        eos_token_id=vocabulary[END],
        pad_token_id=vocabulary[END],
    )


def _clip_vocabulary() -> dict[str, int]:
    """Return CLIP's kind of vocabulary: bytes, bytes that end a word, merges, special tokens."""
    symbols = sorted(ByteLevel.alphabet())
    merged = ["".join(pair) for pair in CLIP_MERGES]
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *merged, START, END]
    return {token: number for number, token in enumerate(tokens)}


def _clip_tokenizer(pad: str) -> CLIPTokenizer:
    """Make a byte-level BPE tokenizer; SDXL's first pads with END, the second with '!'."""
    return CLIPTokenizer(
        vocab=_clip_vocabulary(),
        merges=list(CLIP_MERGES),
        pad_token=pad,
        model_max_length=CLIP_LENGTH,
    )


def _t5_tokenizer() -> T5TokenizerFast:
    """Make a Unigram tokenizer of a few pieces and every Latin-1 character."""
    letters = [chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0x100))]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece, -4.0) for piece in T5_PIECES]
    vocabulary += [(letter, -6.0) for letter in ("▁", *letters)]
    vocabulary += [(f"<extra_id_{number}>", 0.0) for number in reversed(range(100))]
    return T5TokenizerFast(vocab=vocabulary, model_max_length=T5_LENGTH)


def _t5(tokenizer: T5TokenizerFast, width: int) -> T5EncoderModel:
    """Make T5's encoder for a tokenizer."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


def _qwen_tokenizer(
    words: Sequence[str] = (), marks: Sequence[str] = (), template: str = QWEN_TEMPLATE
) -> Qwen2Tokenizer:
    """Make a byte-level BPE tokenizer with Qwen's marks of a conversation.

    Args:
        words: that are tokens of their own; all but the first four behind a space.
        marks: further ones.
        template: of a conversation.
    """
    merges = list(QWEN_MERGES)
    for place, word in enumerate(words):
        pieces = [*word] if place < 4 else ["Ġ", *word]
        for left, right in QWEN_MERGES:  # those come first, wherever they are
            for at in reversed(range(len(pieces) - 1)):
                if pieces[at : at + 2] == [left, right]:
                    pieces[at : at + 2] = [left + right]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces[:2] = [pieces[0] + pieces[1]]
    merges = list(dict.fromkeys(merges))
    symbols = [*sorted(ByteLevel.alphabet()), *dict.fromkeys("".join(pair) for pair in merges)]
    tokens = [*symbols, END, "<|im_start|>", "<|im_end|>", *marks]
    return Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=merges,
        eos_token="<|im_end|>",
        pad_token=END,
        additional_special_tokens=["<|im_start|>", "<|im_end|>", *marks],
        model_max_length=QWEN_LENGTH,
        chat_template=template,
    )


def _qwen_config(tokenizer: Qwen2Tokenizer, layers: int) -> Qwen3Config:
    """Return the settings of a language model for a tokenizer."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.3,
        max_position_embeddings=QWEN_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _write(
    make: Callable[[], DiffusionPipeline],
    folder: Path,
    seed: int,
    named: Mapping[str, str] = NOTHING_NAMED,
) -> None:
    """Make a pipeline from a seed and save it; a folder is there whole or not at all.

    Args:
        make: the pipeline.
        folder: the new folder.
        seed: of the weights.
        named: part -> the class of transformers that its index says, where that is another one.
    """
    _refuse_contents(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = make()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        pipeline.save_pretrained(partial)
        if named:
            index = partial / "model_index.json"
            said = json.loads(index.read_text(encoding="utf-8"))
            said |= {part: ["transformers", kind] for part, kind in named.items()}
            index.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        partial.chmod(0o755)
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _refuse_contents(folder: Path) -> None:
    """Raise FileExistsError if the folder is a file or holds anything."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise FileExistsError(
            f"{folder} exists already and is left as it is; remove it or name another folder"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write tiny models with random weights.")
    parser.add_argument("out", type=Path, help="folder to write tiny-sdxl, tiny-flux, ... into")
    parser.add_argument("--family", choices=(*WRITERS, "all"), default="all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default 0)")
    options = parser.parse_args(arguments)
    disable_progress_bar()
    families = list(WRITERS) if options.family == "all" else [options.family]
    folders = {family: options.out / f"tiny-{family}" for family in families}
    try:
        for folder in folders.values():
            _refuse_contents(folder)
        for family, folder in folders.items():
            WRITERS[family](folder, options.seed)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            print(f"wrote {folder} ({size / 1e6:.1f} MB)")
    except OSError as error:
        print(f"make_tiny_models: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
