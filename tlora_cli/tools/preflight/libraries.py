"""A look at the libraries: are they there, do they load, are they those that were tested."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tlora_cli.foundation.errors import Status
from tlora_cli.foundation.packages import PRODUCT, TESTED, installed_version
from tlora_cli.tools.preflight.findings import Finding, ok, problem, warning

REQUIRED = ("diffusers", "transformers", "accelerate", "peft", "huggingface-hub", "safetensors")
INSTALL = "pip install -c constraints.txt '.[cuda]' in tlora's source folder"


def look_at_libraries() -> Iterator[Finding]:
    """Yield what is found of the libraries that each run needs, torch left out."""
    bounds = _bounds()
    for name in REQUIRED:
        yield look_at_version(name, installed_version(name), bounds.get(name))


def look_at_version(name: str, installed: str, bound: Requirement | None) -> Finding:
    """Return what is found of a library.

    Args:
        name: of its package.
        installed: its version, or `unknown`.
        bound: the versions that tlora asks for, if they are known.
    """
    if installed == "unknown":
        return problem(name, "is not installed", INSTALL, Status.MISSING)
    tested = TESTED[name]
    if reason := _broken(name):
        return problem(
            name,
            f"{installed} can't be loaded: {reason}",
            f"reinstall it: {INSTALL}",
            Status.MISSING,
        )
    if bound is not None and not bound.specifier.contains(installed, prereleases=True):
        return problem(name, f"{installed} is too old: {bound}", INSTALL, Status.MISSING)
    if Version(installed).major != Version(tested).major:
        return warning(name, f"{installed}, but {tested} is what is tested", INSTALL)
    same = Version(installed).public == Version(tested).public
    return ok(name, installed if same else f"{installed} (tested: {tested})")


def _broken(name: str) -> str:
    """Return why a library can't be loaded, or nothing."""
    try:
        importlib.import_module(name.replace("-", "_"))
    except Exception as error:  # a broken installation raises anything
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return ""


def _bounds() -> dict[str, Requirement]:
    """Return what the installed tlora asks for; nothing is known of a source tree."""
    try:
        texts = metadata.requires(PRODUCT) or []
    except metadata.PackageNotFoundError:
        return {}
    found = [Requirement(text) for text in texts]
    return {canonicalize_name(r.name): r for r in found if "extra" not in str(r.marker)}


def look_at_optional(name: str, needed_for: str, has_card: bool) -> Finding:
    """Return what is found of a library that some recipes need.

    Args:
        name: of its package.
        needed_for: what needs it.
        has_card: whether there is a GPU, without which it is of no use.
    """
    if importlib.util.find_spec(name) is None:
        text = f"is not installed; it is needed for {needed_for}"
        if has_card:
            return warning(name, text, "pip install 'tlora[cuda]'")
        return ok(name, f"{text}, on a GPU")
    return look_at_version(name, installed_version(name), None)
