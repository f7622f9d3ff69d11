"""Versions of installed packages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version(package: str) -> str:
    """Return a package's version; `unknown` for a source tree that was not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
