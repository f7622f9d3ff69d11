"""Models without weights, of the configurations of a base's folder or of the standard base."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import expanded
from tlora_cli.foundation.offloading import TURNS
from tlora_cli.foundation.plugins import resolve


def meta_denoiser(family: str, base: str | None = None) -> nn.Module:
    """Return a denoiser with every layer's name and shape but no weights (on the meta device).

    Args:
        family: a name of `FAMILIES`.
        base: a diffusers folder whose configuration is used instead of the standard one, or a Hub
            id of `Family.other_bases`. Anything else is taken to have the standard one.

    Raises:
        UserError: if the folder's configuration can't be read.
    """
    kind = FAMILIES[family]
    published = kind.other_bases.get(base or "")
    standard = {**kind.standard_denoiser, **(published.denoiser if published else {})}
    config = _config(standard, base, kind.denoiser)
    with torch.device("meta"):
        model: nn.Module = resolve(kind.denoiser_class).from_config(config)
    return model


def cast(denoiser: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a denoiser in a number format, but for the layers that diffusers keeps in fp32.

    Args:
        denoiser: from `meta_denoiser`; it is changed.
        dtype: the number format.
    """
    kept = set(getattr(denoiser, "_keep_in_fp32_modules", None) or ())
    for name, tensor in (*denoiser.named_parameters(), *denoiser.named_buffers()):
        if tensor.is_floating_point() and not kept & set(name.split(".")):
            tensor.data = tensor.data.to(dtype)
    return denoiser


def meta_vae(family: str, base: str | None = None) -> Any:
    """Return a VAE without weights, in fp32; see `meta_denoiser`."""
    kind = FAMILIES[family]
    with torch.device("meta"):
        return resolve(kind.vae_class).from_config(_config(kind.standard_vae, base, "vae"))


@contextmanager
def masks_with_values() -> Iterator[None]:
    """Inside, `torch.where` takes a mask that has values beside tensors that have none.

    A transformer whose layout depends on a mask reads it, so that one is on the CPU where all else
    is on the meta device. The function is replaced, as a torch function mode is not in force where
    a backward pass computes blocks again.
    """
    own = torch.where

    def where(mask: Any, *values: Any, **more: Any) -> Any:
        bare = any(isinstance(one, Tensor) and one.is_meta for one in values)
        return own(mask.to("meta") if bare else mask, *values, **more)

    torch.where = where  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.where = own


def latent_sides(family: str, vae: Any, width: int, height: int) -> tuple[int, int]:
    """Return height and width of a picture's latent, as a base's own VAE makes it.

    Args:
        family: by name.
        vae: a VAE without values, from `meta_vae`; a small base's halves sides less often.
        width: of the picture in pixels.
        height: likewise.
    """
    pixels = torch.empty(3, height, width, device="meta")
    rows, columns = FAMILIES[family].encode_image(vae, pixels).mean.shape[-2:]
    return rows, columns


_NUMBERED = re.compile(r"^(.*?\.(?:block|layers)\.\d+)\.")
"""A block of a text encoder, in the name of a weight."""


def text_parameters(family: str, base: str | None = None, *, offloaded: bool = False) -> int:
    """Return how many parameters the text encoders have; a folder's files are read for it.

    Args:
        family: by name.
        base: a folder, or a Hub id.
        offloaded: count those alone that are on the device while blocks take turns there.

    Raises:
        UserError: if a file can't be read.
    """
    found = 0
    kind = FAMILIES[family]
    for encoder in kind.encoder_names if base else ():
        blocks: dict[str, int] = {}
        for file in (expanded(base or "") / encoder).glob("*.safetensors"):
            try:
                with safe_open(file, framework="pt") as tensors:
                    shapes = {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}  # noqa: SIM118
            except (OSError, SafetensorError) as error:
                raise UserError(f"the base can't be read: {error}", str(file)) from error
            for key, shape in shapes.items():
                block = _NUMBERED.match(key)
                name = block[1] if block else ""
                blocks[name] = blocks.get(name, 0) + math.prod(shape)
        found += sum(blocks.values())
        waiting = [size for name, size in blocks.items() if name]
        if offloaded and waiting:
            found -= sum(waiting) - TURNS * max(waiting)
    if found:
        return found
    published = kind.other_bases.get(base or "")
    whole = published.text_parameters if published else kind.standard_text_parameters
    waiting_there = published.text_waiting if published else kind.standard_text_waiting
    return whole - (waiting_there if offloaded else 0)


def _config(standard: Mapping[str, Any], base: str | None, part: str) -> dict[str, Any]:
    """Return the configuration in a base's folder, or the standard one."""
    file = expanded(base or "") / part / "config.json"
    if base is None or not file.is_file():
        return dict(standard)
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the base's configuration can't be read: {error}", str(file)) from error
    return found
