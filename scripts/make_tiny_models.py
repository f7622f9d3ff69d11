#!/usr/bin/env python3
"""Write tiny SDXL and FLUX pipelines with random weights, in the diffusers folder format.

    python scripts/make_tiny_models.py OUT [--family sdxl|flux|all] [--seed 0]

They have every part of the real models (text encoders, tokenizers, VAE, denoiser, scheduler) in a
few megabytes, need no download, and draw noise: the weights are random. The demo and the
tests train on them, so that everything but the quality of the pictures is checked on any computer.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

TEXT_GAIN = 4.0
"""Gain of the layers that bring in the text: one word of 77 would hardly show otherwise."""
CLIP_LENGTH = 77
T5_LENGTH = 512
CLIP_MERGES = (("t", "h"), ("th", "e</w>"), ("i", "n"), ("in", "g</w>"), ("a", "n"))
T5_PIECES = ("▁a", "▁the", "▁of", "▁in", "▁on", "▁with", "▁photo", "the", "ing", "er", "an", "in")
START, END = "<|startoftext|>", "<|endoftext|>"


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


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "sdxl": write_tiny_sdxl,
    "flux": write_tiny_flux,
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
        vae=_vae(
            16,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModel(_clip_config("quick_gelu")),
        text_encoder_2=T5EncoderModel(
            T5Config(
                vocab_size=len(t5_tokenizer),
                d_model=32,
                d_kv=8,
                d_ff=64,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
                is_encoder_decoder=False,
                use_cache=False,
            )
        ),
        tokenizer=_clip_tokenizer(END),
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=1000,
            shift=3.0,
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=1.15,
            base_image_seq_len=256,
            max_image_seq_len=4096,
        ),
    )


def _amplify(denoiser: torch.nn.Module, ending: str) -> None:
    """Scale the weights of the layers whose names end so."""
    with torch.no_grad():
        for name, module in denoiser.named_modules():
            if name.endswith(ending):
                module.weight *= TEXT_GAIN


def _vae(latent_channels: int, **options: Any) -> AutoencoderKL:
    """Make a VAE of factor 8 whose latents and pictures have a natural spread.

    Its random layers give nearly constant outputs and a posterior that is all noise, so the last
    layer of each half is scaled to the spread measured on a picture of noise, and the posterior is
    made narrow.
    """
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=64,
        **options,
    ).eval()
    with torch.no_grad():
        for mix in (vae.quant_conv, vae.post_quant_conv):
            if mix is not None:
                mix.weight.copy_(torch.eye(mix.in_channels)[:, :, None, None])
                mix.bias.zero_()
        smooth = torch.nn.functional.interpolate(
            torch.rand(1, 3, 8, 8) * 2 - 1, size=(64, 64), mode="bicubic"
        )
        means, _ = vae.encoder(smooth).chunk(2, dim=1)
        last = vae.encoder.conv_out
        gain = 1 / (means.std() * vae.config.scaling_factor)
        last.weight[:latent_channels] *= gain
        last.bias[:latent_channels] = (vae.config.shift_factor or 0.0) - gain * means.mean()
        last.weight[latent_channels:] *= 0.1
        last.bias[latent_channels:] = -6.0  # logarithm of the posterior's variance
        last = vae.decoder.conv_out
        latents = torch.randn(1, latent_channels, 8, 8) / vae.config.scaling_factor
        pixels = vae.decoder(latents + (vae.config.shift_factor or 0.0))
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


def _write(make: Callable[[], DiffusionPipeline], folder: Path, seed: int) -> None:
    """Make a pipeline from a seed and save it; a folder is there whole or not at all."""
    _refuse_contents(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = make()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        pipeline.save_pretrained(partial)
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
    parser.add_argument("out", type=Path, help="folder to write tiny-sdxl and tiny-flux into")
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
