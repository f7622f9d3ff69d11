"""Adapter file formats: one a file, which reads and writes it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_HOME = {
    "FORMATS": "registry",
    "AdapterFile": "weights",
    "AdapterInfo": "weights",
    "AdapterWeights": "weights",
    "Format": "spec",
    "OpenAdapter": "reading",
    "open_adapter": "reading",
    "read_adapter": "reading",
    "read_origin": "reading",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that the formats are listed without torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
