"""An adapter file and prompts -> PNG files: what `tlora sample` does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tlora_cli.devices import DTYPES, choose_device, memory_explained
from tlora_cli.errors import UserError
from tlora_cli.families import FAMILIES, Family
from tlora_cli.families.bases import Base, family_of_base
from tlora_cli.files import explained, write_atomically
from tlora_cli.formats import AdapterInfo, read_origin
from tlora_cli.loading import load_adapter, load_words
from tlora_cli.pipelines import choose_attention, load_denoiser, load_text
from tlora_cli.prompts import sampling_prompt
from tlora_cli.recipe import FAMILY_DEFAULTS, SamplingConfig
from tlora_cli.sampling import (
    Job,
    SamplingSettings,
    contact_sheet,
    describe,
    draw,
    encode_texts,
    next_number,
    save_picture,
)

DEFAULT_SIZE = 1024
"""Side of a picture in pixels, for files that don't say at what size they were trained."""


@dataclass(frozen=True)
class Request:
    """What to draw; None means what the adapter file says.

    Attributes:
        prompts: with V* or {concept} for the concept.
        seed, count: pictures seed, seed + 1, ... of each prompt.
        scale: adapter strength.
        quantization: of the base: `nf4`, `int8` or `none`.
        settings: values over those of the file, by name of `SamplingSettings`.
    """

    adapter: Path
    prompts: Sequence[str]
    output: Path
    seed: int = 0
    count: int = 1
    scale: float = 1.0
    min_rank: int | None = None
    concept: str | None = None
    base: str | None = None
    base_config: str | None = None
    precision: str | None = None
    quantization: str | None = None
    device: str = "auto"
    batch_size: int = 1
    sheet: bool = False
    settings: dict[str, Any] | None = None


def generate(request: Request, say: Callable[[str], None]) -> list[Path]:
    """Draw all pictures and return their files, the contact sheet last if one was asked for.

    Raises:
        UserError: for an adapter, base or prompt that doesn't fit.
    """
    with memory_explained("lower --batch-size, --width and --height, or use --quantization nf4"):
        return _generate(request, say)


def _generate(request: Request, say: Callable[[str], None]) -> list[Path]:
    family_name, info = read_origin(request.adapter)
    base = _base(request, info)
    family = FAMILIES[family_name or family_of_base(base)]
    settings = _settings(request, family, info)
    prompts = [sampling_prompt(p, request.concept or _concept(info)) for p in request.prompts]
    precision = request.precision or info.precision
    if precision not in DTYPES:  # the file doesn't say
        precision = "bf16" if torch.cuda.is_available() else "fp32"
    quantization = info.quantization if request.quantization is None else request.quantization
    quantization = None if quantization == "none" else quantization
    device = choose_device(request.device, precision, quantization)
    dtype = DTYPES[precision]
    with explained(request.output):
        request.output.mkdir(parents=True, exist_ok=True)
    family.sampler(settings.scheduler, {})  # an unknown name fails before anything is loaded

    say(f"loading {base.model}")
    pipeline = load_text(family, base, device, dtype)
    load_words(pipeline, request.adapter)
    texts = encode_texts(family, pipeline, prompts, settings.negative_prompt)
    del pipeline
    pipeline = load_denoiser(family, base, device, dtype, quantization, info.objective or "auto")
    _same_attention(getattr(pipeline, family.denoiser), info.attention, say)
    adapter = load_adapter(pipeline, request.adapter, min_rank=request.min_rank)
    adapter.scale = request.scale

    jobs = [Job(p, request.seed + n) for p in dict.fromkeys(prompts) for n in range(request.count)]
    about = describe(
        adapter,
        base.model,
        base.revision,
        precision,
        adapter_file=request.adapter.name,
        batch_size=request.batch_size,
        quantization=quantization,
    )
    written, rows = [], defaultdict[str, list[Image.Image]](list)
    pictures = draw(family, pipeline, adapter, texts, jobs, settings, request.batch_size)
    for job, picture in pictures:
        written.append(save_picture(request.output, job, picture, settings, about))
        if request.sheet:
            rows[job.prompt].append(picture)
        say(str(written[-1]))
    if request.sheet:
        path = request.output / f"{next_number(request.output):04d}_contact_sheet.png"
        sheet = contact_sheet(rows)
        write_atomically(path, lambda file: sheet.save(file, format="PNG"))
        written.append(path)
        say(str(path))
    return written


def _same_attention(denoiser: Any, kind: str | None, say: Callable[[str], None]) -> None:
    """Compute attention as in training, so that a preview is met again; else by PyTorch's own."""
    try:
        choose_attention(denoiser, kind or "sdpa")
    except UserError as error:
        say(f"{error.what}; using sdpa")


def _base(request: Request, info: AdapterInfo) -> Base:
    if request.base:
        return Base(request.base, config=request.base_config)
    if info.base_model is None:
        raise UserError(
            "the adapter file does not say which base model it belongs to",
            where=str(request.adapter),
            do="pass --base with a Hub id, a diffusers folder or a .safetensors file",
        )
    return Base(info.base_model, info.base_revision, info.base_variant, info.base_config)


def _concept(info: AdapterInfo) -> str | None:
    if info.placeholder is None or info.class_name is None:
        return None
    return f"{info.placeholder} {info.class_name}"


def _settings(request: Request, family: Family, info: AdapterInfo) -> SamplingSettings:
    published = {"width": DEFAULT_SIZE, "height": DEFAULT_SIZE}
    published.update(FAMILY_DEFAULTS[family.name]["sampling"])
    try:
        recorded = SamplingConfig.model_validate({**published, **info.sampling}).model_dump()
    except ValueError as error:
        raise UserError(
            "the sampling settings in the adapter's header are damaged",
            where=str(request.adapter),
            do="get the file again, or save it again from its checkpoint",
        ) from error
    given = {key: value for key, value in (request.settings or {}).items() if value is not None}
    settings = SamplingSettings(**{**recorded, **given})
    unit = 8 * family.latent_patch
    for side in ("width", "height"):
        if getattr(settings, side) % unit or getattr(settings, side) <= 0:
            raise UserError(
                f"{side} {getattr(settings, side)} is not a positive multiple of {unit}",
                do=f"choose a {side} that is",
            )
    return settings
