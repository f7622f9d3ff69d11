"""Read an adapter file of any known format."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path

from torch import Tensor

from tlora_cli.formats import kohya
from tlora_cli.formats.additions import without_additions
from tlora_cli.formats.common import DAMAGED, as_of, families_of
from tlora_cli.formats.foreign import unknown
from tlora_cli.formats.lora_names import bare
from tlora_cli.formats.opening import OpenFile, locate, open_file
from tlora_cli.formats.registry import FORMATS
from tlora_cli.formats.spec import Format, Origin, Reader
from tlora_cli.formats.tlora_file import VECTORS
from tlora_cli.formats.weights import AdapterFile, AdapterWeights
from tlora_cli.foundation.errors import UserError


class OpenAdapter:
    """An adapter file that is opened once: names and header are known, tensors read when asked for.

    Attributes:
        given: the path as it was given, for messages.
        format: of the file.
    """

    def __init__(self, given: Path, file: OpenFile, format: Format, reader: Reader) -> None:
        self.given = given
        self.format = format
        self._file = file
        self._reader = reader

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return self._file.load()

    @cached_property
    def origin(self) -> Origin:
        """Family and training of the adapter, told without its tensors and without the base.

        Raises:
            UserError: if the header, or what stands beside the file, is damaged.
        """
        return self._reader.origin(self._file.keys, self._file.header, self._file.path)

    @cached_property
    def families(self) -> set[str]:
        """Families that have layers of these names; one unless they are few, or original names."""
        return families_of(kohya.bare(bare(key)[1]) for key in self._file.keys)

    @property
    def trained_for_v(self) -> bool:
        """Whether another trainer's header says that the base predicted v."""
        header = self._file.header
        return header.get("ss_v_parameterization", "").lower() == "true" or (
            header.get("modelspec.prediction_type", "").lower() in ("v", "v_prediction")
        )

    @property
    def learned_word(self) -> bool:
        """Whether it has learned a word, which belongs to the text encoders."""
        return any(key.endswith(VECTORS) for key in self._file.keys)

    @property
    def needs_weights(self) -> bool:
        """Whether the adapter can be read with its base model's weights only."""
        return self._reader.needs_weights(self._file.keys)

    def read(self, layer_names: Collection[str]) -> AdapterWeights:
        """Return what the file says.

        Args:
            layer_names: full names of the denoiser's linear layers and convolutions; a mapping to
                the layers themselves if their weights are there.

        Raises:
            UserError: if the file is damaged, or has a tensor that is not finite.
        """
        tensors = without_additions(self._tensors, self._file.path)
        file = AdapterFile(self._file.path, self._file.header, tensors, layer_names)
        weights = self._reader.read(file)
        if isinstance(layer_names, Mapping):
            found = weights.layers.items()
            layers = {name: as_of(pair, layer_names.get(name)) for name, pair in found}
            weights = dataclasses.replace(weights, layers=layers)
        for name, pair in weights.layers.items():  # the numbers are, but a scale was folded in
            if not all(bool(factor.isfinite().all()) for factor in pair):
                raise UserError(
                    f"the scale of layer {name} is too large", str(self._file.path), DAMAGED
                )
        return weights


def open_adapter(path: Path) -> OpenAdapter:
    """Open an adapter of any known format.

    Args:
        path: the file, or the folder it lies in. Pickled code is never run.

    Raises:
        UserError: if the file is missing, empty, damaged, of no known format, or holds code.
    """
    file = open_file(locate(path))
    readers = [(one, one.reader) for one in FORMATS.values() if one.reader is not None]
    for one, reader in sorted(readers, key=lambda pair: pair[1].generic):
        if reader.matches(file.keys, file.header):  # before tensors: it may be a whole model
            return OpenAdapter(path, file, one, reader)
    raise unknown(file.keys, file.path)


def read_adapter(path: Path, layer_names: Collection[str]) -> AdapterWeights:
    """Read an adapter of any known format; see `OpenAdapter.read`."""
    return open_adapter(path).read(layer_names)


def read_origin(path: Path) -> Origin:
    """Return an adapter's family and where it comes from; see `OpenAdapter.origin`."""
    return open_adapter(path).origin
