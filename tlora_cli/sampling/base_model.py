"""Put the parts of a base model where they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tlora_cli.families import Family
from tlora_cli.families.loading import Base, family_of_base, load_pipeline
from tlora_cli.formats import AdapterInfo, OpenAdapter
from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.offloading import offload


def base_of_adapter(adapter: Path, info: AdapterInfo, base: str | None, config: str | None) -> Base:
    """Return the base that is given, else the one that the adapter says.

    Raises:
        UserError: if neither says one.
    """
    if base:
        return Base(base, config=config)
    if info.base_model is None:
        raise UserError(
            "the adapter file does not say which base model it belongs to",
            where=str(adapter),
            do="pass --base with a Hub id, a diffusers folder or a .safetensors file",
        )
    return Base(info.base_model, info.base_revision, info.base_variant, info.base_config)


def family_for(opened: OpenAdapter, base: Base) -> str:
    """Return an adapter's family; that of the base where the file's names fit several.

    Raises:
        UserError: if neither says it.
    """
    stated = opened.origin[0]
    if stated is None:
        return family_of_base(base)
    if len(opened.families) < 2 or base.is_file:
        return stated
    owner = family_of_base(base)
    return owner if owner in opened.families else stated


def load_text(
    family: Family,
    base: Base,
    device: torch.device,
    dtype: torch.dtype,
    *,
    offloaded: bool = False,
) -> Any:
    """Return a pipeline with the text encoders only; delete it to free them.

    Args:
        family: of the base.
        base: where it is.
        device: where it computes.
        dtype: of the encoders.
        offloaded: whether their blocks wait in main memory.
    """
    pipeline = load_pipeline(family, base, parts=("text",), dtype=dtype)
    if offloaded:
        for encoder in family.encoders_of(pipeline):
            encoder.requires_grad_(False)
            offload(encoder, device)
    return pipeline.to(device)


def load_denoiser(
    family: Family,
    base: Base,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str | None,
    objective: str,
    *,
    offloaded: bool = False,
) -> Any:
    """Return a pipeline with denoiser, VAE and scheduler, ready to run.

    Args:
        family: of the base.
        base: where it is.
        device: where it computes.
        dtype: of the denoiser; the VAE is fp32.
        quantization: `nf4`, `int8` or None.
        objective: what the adapter is trained for; the scheduler is told if it is not `auto`.
        offloaded: whether the denoiser's blocks wait in main memory.

    Raises:
        UserError: if the base can't be loaded so.
    """
    if offloaded and quantization == "int8":
        raise UserError(
            "int8 weights are kept where they can't be moved, so they can't be offloaded",
            where="quantization",
            do="use nf4 or none, or no offloading",
        )
    parts = ("vae", "denoiser")
    pipeline = load_pipeline(family, base, parts=parts, dtype=dtype, quantization=quantization)
    denoiser = getattr(pipeline, family.denoiser)
    denoiser.requires_grad_(False)  # it is drawn with in the same way whether one trains or not
    if offloaded:
        offload(denoiser, device)
    elif not quantization:  # bitsandbytes has placed a quantized denoiser already
        denoiser.to(device)
    pipeline.vae.to(device)
    family.set_objective(pipeline.scheduler, objective)
    return pipeline


def choose_attention(denoiser: Any, kind: str) -> None:
    """Compute attention by `sdpa`, PyTorch's own, or by `xformers`.

    Raises:
        UserError: if xformers is missing or can't run on this machine.
    """
    if kind == "sdpa":  # what diffusers does by itself
        return
    try:
        denoiser.enable_xformers_memory_efficient_attention()
    except (ImportError, RuntimeError, ValueError) as error:
        raise UserError(
            f"xformers attention can't be used: {error}",
            where="train.attention",
            do="pip install 'tlora[cuda]' on a CUDA machine, or use attention: sdpa",
            kind=Status.MISSING,
        ) from error
