"""Versions of installed packages, and those that are tested together."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PRODUCT = "tlora"
"""The name of this program: of its package, its command, its own adapter files."""

TESTED = {
    "torch": "2.13.0",
    "diffusers": "0.42.1",
    "transformers": "5.23.0",
    "accelerate": "1.15.0",
    "peft": "0.21.2",
    "huggingface-hub": "2.4.0",
    "safetensors": "0.8.0",
    "bitsandbytes": "0.50.2",
    "xformers": "0.0.35",
}
"""Versions as constraints.txt has them, which is not installed; a test holds the two together."""


def installed_version(package: str) -> str:
    """Return a package's version; `unknown` for a source tree that was not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
