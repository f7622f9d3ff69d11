"""A base model looks at photographs, and says where it sees their class."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from tlora_cli.families import Family
from tlora_cli.families.loading import Base
from tlora_cli.families.text_rows import joined
from tlora_cli.foundation.devices import DTYPES, release_memory
from tlora_cli.foundation.pictures import read_picture
from tlora_cli.photos.framing import own_size
from tlora_cli.recipe.train_sections import TrainConfig
from tlora_cli.sampling.base_model import choose_attention, load_denoiser, load_text
from tlora_cli.sampling.class_map import ClassMap

PROMPT = "a photo of a {}"


def look(
    family: Family,
    base: Base,
    train: TrainConfig,
    class_name: str,
    photos: Sequence[Path],
    where: str,
    device: torch.device,
) -> list[npt.NDArray[np.float32]]:
    """Return where the base sees the class on each photo (`class_map`), (h, w) of its latent.

    The text encoders are freed before denoiser and VAE are loaded, as for a run, and these before
    it returns, so a run's peak of memory stays what it is.

    Args:
        family: of the base.
        base: where it is.
        train: number format, quantization, attention, objective, guidance and size.
        class_name: what the photos show.
        photos: their files.
        where: what names them, for messages.
        device: where to compute.

    Raises:
        UserError: if the base or a photo can't be read.
    """
    dtype = DTYPES[train.precision]
    encoders = load_text(family, base, device, dtype, offloaded=train.offload)
    with torch.no_grad():
        texts = [
            family.encode_prompts(encoders, [text]) for text in (PROMPT.format(class_name), "")
        ]
    rows = {key: value.to(device) for key, value in joined(texts).items()}
    del encoders
    _free()
    pipeline = load_denoiser(
        family,
        base,
        device,
        dtype,
        train.quantization,
        train.objective,
        offloaded=train.offload,
    )
    denoiser = getattr(pipeline, family.denoiser)
    choose_attention(denoiser, train.attention)
    objective = family.objective(dict(pipeline.scheduler.config), train.objective)
    seen = ClassMap(family, denoiser, objective, dtype, train.guidance, rows)
    maps = []
    for photo in photos:
        picture = read_picture(photo, where, "RGB")
        pixels = sized(picture, train.resolution, family.pixel_multiple)
        latent = family.encode_image(pipeline.vae, pixels).mean
        height, width = pixels.shape[-2:]
        size = family.image_conditioning(picture.size, (width, height))
        maps.append(seen(latent, size).numpy())
    del pipeline, denoiser, seen
    _free()
    return maps


def sized(picture: Image.Image, resolution: int, multiple: int) -> Tensor:
    """Return the whole picture, (3, H, W) in [-1, 1], of about resolution x resolution pixels.

    One of an odd shape is squeezed into the nearest that the base can be given.

    Args:
        picture: RGB.
        resolution: side of a square of as many pixels.
        multiple: of which the sides are.
    """
    size = own_size(picture.size, resolution, multiple)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size was judged
        small = picture.resize(size, Image.Resampling.LANCZOS)
    values = torch.from_numpy(np.array(small)).permute(2, 0, 1)
    return values.float().div(255) * 2 - 1


def _free() -> None:
    gc.collect()  # pipelines hold themselves
    release_memory()
