"""Adapter file formats: one a file. `FORMATS` is tried in order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from tlora_cli.formats import kohya, lycoris, peft_lora, published, tlora_file
from tlora_cli.formats.common import DAMAGED
from tlora_cli.formats.foreign import unknown
from tlora_cli.formats.opening import OpenFile, locate, open_file
from tlora_cli.formats.weights import AdapterFile, AdapterInfo, AdapterWeights
from tlora_cli.foundation.errors import UserError

__all__ = [
    "FORMATS",
    "AdapterFile",
    "AdapterInfo",
    "AdapterWeights",
    "Reader",
    "needs_weights",
    "read_adapter",
    "read_origin",
]


class Reader(Protocol):
    """What a format's module has."""

    def matches(self, keys: set[str], header: Mapping[str, str]) -> bool:
        """Whether a file with these tensor names and this header is of the format."""

    def origin(
        self, keys: Collection[str], header: Mapping[str, str], path: Path
    ) -> tuple[str | None, AdapterInfo]:
        """Return family and training as far as they are known without the tensors."""

    def read(self, file: AdapterFile) -> AdapterWeights:
        """Return what the file says; raise a UserError if it is damaged."""


FORMATS: dict[str, Reader] = {
    "tlora": tlora_file,
    "published": published,
    "peft": peft_lora,
    "lycoris": lycoris,
    "kohya": kohya,
}
"""Name -> reader; the first that matches reads the file."""


def read_adapter(path: Path, layer_names: Collection[str]) -> AdapterWeights:
    """Read an adapter of any known format.

    Args:
        path: the file, or the folder it lies in. Pickled code is never run.
        layer_names: full names of the denoiser's linear layers; a mapping to the layers themselves
            if their weights are there.

    Raises:
        UserError: if the file is missing, empty, damaged, of no known format, holds code, or has a
            tensor that is not finite.
    """
    opened = open_file(locate(path))
    reader = _reader(opened)  # before any tensor is read: the file may be a whole model
    weights = reader.read(AdapterFile(opened.path, opened.header, opened.load(), layer_names))
    for name, pair in weights.layers.items():  # the file's numbers are, but a scale was folded in
        if not all(bool(factor.isfinite().all()) for factor in pair):
            raise UserError(f"the scale of layer {name} is too large", str(opened.path), DAMAGED)
    return weights


def read_origin(path: Path) -> tuple[str | None, AdapterInfo]:
    """Return an adapter's family and where it comes from, without knowing the base model.

    Raises:
        UserError: as `read_adapter`, but the tensors themselves are not looked at.
    """
    opened = open_file(locate(path))
    return _reader(opened).origin(opened.keys, opened.header, opened.path)


def needs_weights(path: Path) -> bool:
    """Whether an adapter can be read with its base model's weights only.

    Raises:
        UserError: as `read_origin`.
    """
    opened = open_file(locate(path))
    return _reader(opened) is lycoris and lycoris.lacks_start(opened.keys)


def _reader(opened: OpenFile) -> Reader:
    for reader in FORMATS.values():
        if reader.matches(opened.keys, opened.header):
            return reader
    raise unknown(opened.keys, opened.path)
