"""Adapter file formats: one a file, which reads and writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlora_cli.foundation.lazy import public_names

if TYPE_CHECKING:
    from tlora_cli.formats.reading import OpenAdapter, open_adapter, read_adapter, read_origin
    from tlora_cli.formats.registry import FORMATS
    from tlora_cli.formats.spec import Format
    from tlora_cli.formats.weights import AdapterFile, AdapterInfo, AdapterWeights

__all__ = [
    "FORMATS",
    "AdapterFile",
    "AdapterInfo",
    "AdapterWeights",
    "Format",
    "OpenAdapter",
    "open_adapter",
    "read_adapter",
    "read_origin",
]

# Nothing is imported before it is used, so that the formats are listed without torch.
__getattr__, __dir__ = public_names(
    __name__,
    {
        "FORMATS": "registry",
        "AdapterFile": "weights",
        "AdapterInfo": "weights",
        "AdapterWeights": "weights",
        "Format": "spec",
        "OpenAdapter": "reading",
        "open_adapter": "reading",
        "read_adapter": "reading",
        "read_origin": "reading",
    },
)
