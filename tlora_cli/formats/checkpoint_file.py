"""The adapter file of a checkpoint, where it holds what is trained and nothing else.

A method whose start is subtracted (T-LoRA, PiSSA) needs that start with every file. It is the same
through a whole run, so it lies once beside the checkpoints, in `start.safetensors`; a checkpoint's
file says its checksum in `tlora.start`. Together they give the pair of factors of a whole file, bit
for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from shlex import quote

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tlora_cli.formats.weights import AdapterInfo, Pair
from tlora_cli.formulas.products import delta_form
from tlora_cli.foundation.devices import on_host
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_atomically
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.methods import METHODS

START_FILE = "start.safetensors"
"""The start of a run's adapter, in the folder of its checkpoints."""
START, KERNELS = "tlora.start", "tlora.kernels"
"""Fields of the header: checksum of the start; height and width of the kernels of convolutions."""


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors with their names and shapes, on whatever device they are."""
    digest = hashlib.sha256()
    for name, tensor in sorted(on_host(dict(tensors)).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# --- the start --------------------------------------------------------------------------------


def keep_start(file: Path, tensors: Mapping[str, Tensor], doubt: bool = False) -> str:
    """Write a start, unless the file holds it already; return its checksum.

    Args:
        file: that holds it.
        tensors: of the start.
        doubt: read the whole file to see whether it does, not its header alone.
    """
    stored = on_host(dict(tensors))
    now = checksum(stored)
    if _said(file) != now or (doubt and not _holds(file, now)):
        header = {"format": "pt", START: now}
        write_atomically(file, lambda temporary: save_file(stored, temporary, metadata=header))
    return now


def read_start(file: Path, wanted: str, do: str) -> dict[str, Tensor]:
    """Return the tensors of a start.

    Args:
        file: that holds it.
        wanted: their checksum.
        do: what a user can do if they can't be had.

    Raises:
        UserError: if the file is missing or damaged, or holds another start.
    """
    if not file.is_file():
        raise UserError(f"the start of the run is missing: {file.name}", str(file.parent), do)
    if _said(file) not in (wanted, None):
        raise UserError("it is the start of another run", str(file), do)
    if not _holds(file, wanted):
        raise UserError("the start of the run is damaged", str(file), do)
    return load_file(file)


def _said(file: Path) -> str | None:
    """Return the checksum in the header of a file; None if it is missing or damaged."""
    try:
        with safe_open(file, "pt") as opened:
            said: str | None = (opened.metadata() or {}).get(START)
            return said
    except (SafetensorError, OSError):
        return None


def _holds(file: Path, wanted: str) -> bool:
    """Whether a file is whole and has the checksum."""
    try:
        return checksum(load_file(file)) == wanted
    except (SafetensorError, OSError):
        return False


def find_start(path: Path, header: Mapping[str, str], info: AdapterInfo) -> Path | None:
    """Return the file of the start that a checkpoint's file leaves out; None if it needs none.

    Args:
        path: the checkpoint's file.
        header: of the file.
        info: of the file, which tells where it was written.

    Raises:
        UserError: if it is not where it should be.
    """
    if START not in header:
        return None
    above = [one.parent.parent / START_FILE for one in (path.absolute(), path.resolve())]
    found = [file for file in above if file.is_file() and _said(file) in (header[START], None)]
    if found:
        return found[0]
    run = (info.recipe.get("output") or {}).get("dir", "RUN")
    first = f"{run}/checkpoints/checkpoint-{info.train_steps or 0:06d}"
    raise UserError(
        "the file is a training checkpoint, and the start of its run does not lie beside it: "
        f"{run}/checkpoints/{START_FILE}",
        where=str(path),
        do=f"take the file from its run, {first}; to use it elsewhere, make a whole file of it: "
        f"tlora convert {quote(str(first))} --output whole.safetensors",
    )


def start_of(path: Path, header: Mapping[str, str], info: AdapterInfo) -> dict[str, Tensor]:
    """Return the start that a checkpoint's file leaves out; see `find_start`.

    Raises:
        UserError: if it is not there or damaged.
    """
    file = find_start(path, header, info)
    if file is None:
        return {}
    return read_start(file, header[START], _DAMAGED)


_DAMAGED = (
    "resume the run: its seed mostly gives the start again; the run's result, its "
    "adapter.safetensors, needs none"
)


# --- the pairs --------------------------------------------------------------------------------

Parts = Mapping[str, Mapping[str, Tensor]]
"""Name of a layer -> name of a tensor of its method -> the tensor."""


def pairs_of(
    method_name: str | None, trained: Parts, start: Parts, header: Mapping[str, str]
) -> dict[str, Pair]:
    """Return each layer's pair of factors, as a whole file holds it.

    Args:
        method_name: of the method.
        trained: what the checkpoint's file holds.
        start: what it leaves out.
        header: of the file.

    Raises:
        KeyError, ValueError, RuntimeError: if tensors are missing or don't fit each other.
    """
    method = METHODS.get(method_name or "")
    if method is None or method.update is None:
        raise ValueError(f"the method is {method_name or 'not said'}")
    kernels = parse_json(header.get(KERNELS, "{}"))
    if not isinstance(kernels, dict):
        raise ValueError(f"kernels is {kernels}")
    pairs = {}
    for layer, tensors in trained.items():
        every = {**start.get(layer, {}), **tensors}
        parts = [every[part] for part in method.update.parts]
        down, up = delta_form(method.update.combine(*parts))
        if layer in kernels:
            height, width = kernels[layer]
            down, up = down.reshape(len(down), -1, height, width), up[:, :, None, None]
        pairs[layer] = down, up
    return pairs
