"""Open an adapter file that may be missing, damaged, or hostile. Code in pickles is never run."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tlora_cli.formats.pickles import check_tensors
from tlora_cli.foundation.errors import UserError, system_reason
from tlora_cli.foundation.files import expanded

PICKLES = (".pt", ".pth", ".bin", ".ckpt")
"""Endings of files that are read with `torch.load`, restricted to tensors."""

NAMES = (
    "adapter.safetensors",
    "pytorch_lora_weights.safetensors",
    "lora.pt",
    "adapter_model.safetensors",
)
"""Names of an adapter file in a folder: ours, diffusers' and the published SDXL one, the
published FLUX one, PEFT's."""

WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Kinds of whole numbers."""

_AGAIN = "download or copy the file again"


@dataclass(frozen=True)
class OpenFile:
    """A file whose names are known and whose tensors are not read yet."""

    path: Path
    keys: set[str]
    header: dict[str, str]
    load: Callable[[], dict[str, Tensor]]
    """Read the tensors; raises a UserError if one is not finite."""


def locate(path: Path) -> Path:
    """Return the adapter file that `path` means: itself, or the one in the folder.

    Raises:
        UserError: if there is none.
    """
    path = expanded(path)
    if path.is_file():
        return path
    if not path.exists():
        raise UserError("the adapter file does not exist", str(path), "check the path")
    for name in NAMES:
        if (path / name).is_file():
            return path / name
    found = [folder.name for folder in path.glob("checkpoint-*") if folder.is_dir()]
    checkpoints = sorted(found, key=lambda name: (len(name), name))
    raise UserError(
        "the folder holds no adapter file",
        where=str(path),
        do=f"name one of its checkpoints, such as {path / checkpoints[-1]}"
        if checkpoints
        else f"name the file itself; known names are {', '.join(NAMES)}",
    )


def open_file(path: Path) -> OpenFile:
    """Open a file without reading its tensors, where the format allows.

    Raises:
        UserError: if it can't be read, or isn't what its ending says.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise UserError(
            f"the adapter file can't be read: {system_reason(error)}",
            str(path),
            "check its permissions",
        ) from error
    if not head:
        raise UserError("the adapter file is empty", str(path), _AGAIN)
    if head.startswith(b"version https://git-lfs"):
        raise UserError(
            "the file is a Git LFS pointer, not the adapter itself", str(path), "run `git lfs pull`"
        )
    if head.lstrip().startswith(b"<"):
        raise UserError("the file is a web page, not an adapter", str(path), _AGAIN)
    if path.suffix.lower() in PICKLES:
        return _open_pickle(path)
    return _open_safetensors(path, head)


def _open_safetensors(path: Path, head: bytes) -> OpenFile:
    if head[8:9] != b"{":
        if head.startswith((b"PK\x03\x04", b"\x80")):
            raise UserError(
                f"the file is a PyTorch pickle, though its name ends in {path.suffix or 'nothing'}",
                where=str(path),
                do="rename it to end in .pt",
            )
        raise UserError("the file is not a safetensors file", str(path), _AGAIN)
    with _damage_explained(path), safe_open(path, "pt") as file:
        keys, header = set(file.keys()), dict(file.metadata() or {})

    def load() -> dict[str, Tensor]:
        with _damage_explained(path), safe_open(path, "pt") as file:
            return _checked({key: file.get_tensor(key) for key in sorted(keys)}, path)

    return OpenFile(path, keys, header, load)


@contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    """Turn what safetensors raises for a damaged file into a UserError."""
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise UserError("the adapter file is truncated or damaged", str(path), _AGAIN) from error


def _open_pickle(path: Path) -> OpenFile:
    try:
        check_tensors(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            "the file contains code or Python objects, not only tensors; it was not run",
            where=str(path),
            do="get the adapter as a .safetensors file",
        ) from error
    except Exception as error:  # a damaged pickle makes torch raise nearly anything
        raise UserError(
            "the file is not a PyTorch file, or it is truncated or damaged", str(path), _AGAIN
        ) from error
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise UserError(
            "the file holds something other than named tensors",
            where=str(path),
            do="get the adapter as a .safetensors file",
        )
    tensors = dict(content)
    return OpenFile(path, set(tensors), {}, lambda: _checked(tensors, path))


def _checked(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    for key, tensor in tensors.items():
        if not tensor.numel():  # its other sides may be of any length
            raise UserError(f"tensor {key} is empty", str(path), _AGAIN)
        if tensor.dtype in WHOLE and tensor.numel() == 1:  # alpha, as some tools store it
            tensors[key] = tensor.float()
            continue
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise UserError(
                f"tensor {key} holds {str(tensor.dtype).removeprefix('torch.')}, not real numbers",
                where=str(path),
                do="get an adapter that is not quantized",
            )
        # As fp32, for one byte floats know no isfinite, and what is computed with is fp32.
        if not torch.isfinite(tensor.float()).all():
            raise UserError(
                f"tensor {key} holds NaN or infinity: the training that made it diverged",
                where=str(path),
                do="use an earlier checkpoint",
            )
    return tensors
