"""Options whose values are names: how they are checked, listed, and completed in the shell.

Typer's own choices would say of a wrong name only which are right; here the one that was meant is
told too. What names there are is asked when it is needed, so plug-ins are among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tlora_cli.foundation.errors import UserError, known_names
from tlora_cli.foundation.number_formats import DEVICES, QUANTIZATIONS, TORCH_NAMES

__all__ = [
    "DEVICES",
    "PRECISIONS",
    "QUANTIZATIONS",
    "check_known",
    "check_name",
    "completing",
    "either",
]

PRECISIONS = tuple(TORCH_NAMES)


def completing(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Return what the shell is told while such a name is typed."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def either(names: Iterable[str]) -> str:
    """Return names in a row, with `or` before the last."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def check_name(option: str, value: str | None, names: Iterable[str]) -> None:
    """Raise a UserError if a value, where one is given, is none of a few names."""
    if value is not None and value not in names:
        raise UserError(
            f"{option} {value or repr(value)} is not known", do=f"use one of {', '.join(names)}"
        )


def check_known(option: str, value: str | None, names: Iterable[str]) -> None:
    """Raise a UserError, with the name that may be meant, as `check_name` does."""
    if value is not None and value not in names:
        raise UserError(
            f"{option} {value or repr(value)} is not known", do=known_names(value, names)
        )
