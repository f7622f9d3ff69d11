"""The form in which a single-file base stores its weights: what is read, and what is refused.

ComfyUI's scaled fp8 has a scale beside a layer's weight, which it is to be multiplied with:
`x.scale_weight` (and `scaled_fp8` in the file), or `x.weight_scale` (and `x.comfy_quant`, or
`_quantization_metadata` in the header, which name the form). Scales of activations concern fast
products alone. A tensor that no model takes is never dropped in silence: diffusers would.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from tlora_cli.families.single_file_facts import (
    DENOISER,
    LEAVES,
    MARKS,
    OTHER_PARTS,
    UNUSED,
    SingleFile,
    kind_of,
)
from tlora_cli.families.spec import Family
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.foundation.errors import UserError

_QUANTIZED = re.compile(r"scale|absmax|quant|qweight|qzeros|SCB")
_SCALE = re.compile(r"(?P<layer>.+)\.(?:scale_weight|weight_scale)")
_ACTIVATIONS = re.compile(r".+\.(?:scale_input|input_scale)")
_MARK = re.compile(r"(?:.*\.)?(?:scaled_fp8|comfy_quant)")
_FORMATS = ("float8_e4m3fn", "float8_e5m2")
_HARMLESS = {"format", "full_precision_matrix_mult"}
_DO_STORAGE = "use the file in fp16, bf16, or fp8 without or with one scale for each layer"


def check_tensors(family: Family, file: SingleFile, config: Path) -> None:
    """Raise a UserError if the file holds anything that the model would not be loaded with.

    Args:
        family: the expected family.
        file: to look at.
        config: the diffusers folder that goes with it.
    """
    absent = [part for part in family.single_file_keys if not any(part in n for n in file.shapes)]
    wanted: dict[str, Tensor] = meta_denoiser(family.name, str(config)).state_dict()
    native = all(name in file.shapes for name in list(wanted)[:2])
    if absent and not native:
        kind = kind_of(file.shapes)
        raise UserError(
            f"{file.path.name} is no whole {family.name} file: no tensor is called {absent[0]}*"
            + (f"; it is {kind}" if kind else ""),
            where="base.model",
            do="change family or base",
        )
    _check_storage(family, file, wanted)
    _check_shapes(family, file, wanted)


def scales_of(file: SingleFile) -> dict[str, str]:
    """Return name of a weight -> name of the scale that it is to be multiplied with."""
    found = (_SCALE.fullmatch(name) for name in file.shapes)
    return {f"{match['layer']}.weight": match[0] for match in found if match}


def scaled_tensors(file: SingleFile, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the denoiser's tensors by name, weights multiplied with their scales in fp32."""
    scales, tensors = scales_of(file), {}
    with safe_open(file.path, framework="pt") as opened:
        for name in file.denoiser:
            if _is_storage(name):
                continue
            tensor = opened.get_tensor(name)
            if name in scales:
                scale = opened.get_tensor(scales[name]).float()
                if scale.dim() == 1 and scale.numel() > 1:  # a scale for each row
                    scale = scale.view(-1, *[1] * (tensor.dim() - 1))
                tensor = tensor.float() * scale
            tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return tensors


def _is_storage(name: str) -> bool:
    return any(one.fullmatch(name) for one in (_SCALE, _ACTIVATIONS, _MARK))


def _check_storage(family: Family, file: SingleFile, wanted: Iterable[str]) -> None:
    """Raise a UserError for weights that are stored in another way than is known.

    Args:
        family: of the base.
        file: to look at.
        wanted: names of the denoiser's tensors; a tensor called like one of them is no other form
            of a weight.
    """
    denoiser = set(file.denoiser)
    own = {name.rpartition(".")[2] for name in wanted}
    for name in sorted(file.shapes):
        used = name in denoiser or (family.single_file_is_whole and name.startswith(OTHER_PARTS))
        if not used or name in MARKS or name.startswith(UNUSED):
            continue
        if _is_storage(name):
            if name not in denoiser:
                raise _storage(file, f"{name}; scales are read for the denoiser alone")
            continue
        plain = LEAVES.fullmatch(name) or name.rpartition(".")[2] in own
        if not plain and (name in denoiser or _QUANTIZED.search(name)):
            raise _storage(file, name)
    for weight, scale in scales_of(file).items():
        if scale not in denoiser:
            continue
        if weight not in denoiser:
            raise _storage(file, f"{scale} without {weight}")
        shape, rows = file.shapes[scale], file.shapes[weight][0]
        if math.prod(shape) != 1 and (shape[0] != rows or math.prod(shape) != rows):
            raise _storage(file, f"{scale} of shape {_times(shape)}; scales of blocks are not read")
    for layer, settings in _stored_formats(file):
        if settings.get("format") not in _FORMATS or settings.keys() - _HARMLESS:
            told = ", ".join(f"{key}: {value}" for key, value in sorted(settings.items()))
            raise _storage(file, f"{layer} as {told}")


def _stored_formats(file: SingleFile) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield layer, and how ComfyUI is told that it is stored."""
    try:
        told = json.loads(file.header.get("_quantization_metadata", "{}")).get("layers", {})
        yield from ((layer, dict(settings)) for layer, settings in told.items())
        with safe_open(file.path, framework="pt") as opened:
            for name in file.shapes:
                if name.endswith(".comfy_quant"):
                    text = bytes(opened.get_tensor(name).to(torch.uint8).tolist())
                    yield name.removesuffix(".comfy_quant"), dict(json.loads(text))
    except (ValueError, TypeError, AttributeError) as error:
        raise _storage(file, f"settings that can't be read ({error})") from error


def _storage(file: SingleFile, what: str) -> UserError:
    return UserError(
        f"the weights in {file.path.name} are stored in a way that is not known: it holds {what}",
        where="base.model",
        do=_DO_STORAGE,
    )


def _check_shapes(family: Family, file: SingleFile, wanted: Mapping[str, Tensor]) -> None:
    """Raise a UserError if the file has more numbers, fewer or others than the denoiser.

    Args:
        family: of the base.
        file: to look at.
        wanted: the denoiser's tensors by the folder's configuration, without values.
    """
    layers = [name.removesuffix(".weight") for name in wanted if name.endswith(".weight")]
    places = {alias: members for alias, members in family.original_names(layers)}
    numbers = 0
    for name in file.denoiser:
        unread = name.removeprefix(DENOISER) in family.single_file_unread
        if _is_storage(name) or name in MARKS or unread:
            continue
        shape = file.shapes[name]
        numbers += math.prod(shape)
        stem = name.removeprefix(DENOISER).removesuffix(".weight")
        members = [f"{one}.weight" for one in places.get(stem.replace(".", "_"), ())]
        if not name.endswith(".weight") or not members or not all(one in wanted for one in members):
            continue
        rows = sum(wanted[one].shape[0] for one in members)
        expected = (rows, *wanted[members[0]].shape[1:])
        if math.prod(shape) != math.prod(expected):
            raise UserError(
                f"{name} is {_times(shape)} in {file.path.name}, but {_times(expected)} by "
                f"{family.denoiser}/config.json of base.config: the file is another model, such as "
                "one for inpainting, control or editing",
                where="base.model",
                do="use the text-to-image model of the family, and the folder of the same model",
            )
    expected_numbers = sum(tensor.numel() for tensor in wanted.values())
    if numbers != expected_numbers:
        much = "more" if numbers > expected_numbers else "fewer"
        raise UserError(
            f"{file.path.name} holds {abs(numbers - expected_numbers):,} numbers {much} than the "
            f"{family.denoiser} of base.config takes ({expected_numbers:,})"
            + (f"; by its names it is {kind}" if (kind := kind_of(file.shapes)) else ""),
            where="base.model",
            do="check that file and folder are of the same model, and that nothing was added to it",
        )


def _times(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))
