"""Facts that the program must know of a format of adapter files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tlora_cli.formats.weights import AdapterFile, AdapterInfo, AdapterWeights

Origin: TypeAlias = tuple[str | None, AdapterInfo]
"""Family and training of an adapter, as far as they are known without its tensors."""
Sizes: TypeAlias = Mapping[str, int]
"""Outputs of the denoiser's linear layers and convolutions, by name."""


@dataclass(frozen=True)
class Reader:
    """The reading of a format's files.

    Attributes:
        matches: (names of the tensors, header) -> whether a file is of the format.
        origin: (names, header, path) -> family and training.
        read: file -> what it says; raises a UserError if the file is damaged.
        generic: whether other formats build upon its names, so that they are asked first.
        needs_weights: names -> whether the file can be read with the base's weights only.
    """

    matches: Callable[[set[str], Mapping[str, str]], bool]
    origin: Callable[[Collection[str], Mapping[str, str], Path], Origin]
    read: Callable[[AdapterFile], AdapterWeights]
    generic: bool = False
    needs_weights: Callable[[Collection[str]], bool] = lambda keys: False


@dataclass(frozen=True)
class Format:
    """A format of adapter files: read, written or both.

    Attributes:
        name: in `FORMATS`.
        reader: None if it is only written.
        write: (output, weights with family and schedule, sizes) -> what the new file can't say, in
            sentences; None if it is only read.
        folder: whether the output is a folder.
        slices: whether it is written as slices of ranks that are switched on one by one.
        low_rank_only: whether it has no place for methods that are no product of factors.
        words: whether it has a place for a learned word.
    """

    name: str
    reader: Reader | None
    write: Callable[[Path, AdapterWeights, Sizes], list[str]] | None
    folder: bool = False
    slices: bool = False
    low_rank_only: bool = True
    words: bool = False
