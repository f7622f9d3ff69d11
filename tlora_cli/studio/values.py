"""Values that the page sends: each function returns what can be taken, or raises a UserError."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tlora_cli.foundation.errors import UserError, known_names

CARDS = ("12gb", "16gb", "24gb", "48gb", "80gb")
"""Sizes of cards that can be planned for in place of this machine."""
MASK = "rank_mask"
"""Key of a drawn picture's metadata: whether the ranks were masked by the timestep."""
MOST_STEPS = 100_000


def text(value: Any, key: str) -> str:
    """Return a short text in one line."""
    if not isinstance(value, str) or len(value) > 300 or not value.isprintable():
        raise UserError(f"{key} is no text that can be taken", do="write it anew")
    return value.strip()


def one_of(value: Any, known: Collection[str], key: str) -> str:
    """Return one of what is known."""
    if value not in known:
        raise UserError(f"{key} {value!r} is not known", do=known_names(str(value), known))
    return str(value)


def whole(value: Any, low: int, high: int, key: str) -> int:
    """Return a whole number within bounds."""
    if type(value) is not int or not low <= value <= high:
        raise UserError(f"{key} must be a whole number from {low} to {high}", do="change it")
    return value


def whole_numbers(value: Any, length: int) -> list[int]:
    """Return whole numbers, from 0 on."""
    if not isinstance(value, list) or len(value) != length:
        raise UserError("the square is not understood", do="load the page again")
    return [whole(one, 0, 10**6, "each number of the square") for one in value]


def steps(value: Any) -> int | None:
    """Return a number of training steps; None for the usual one."""
    return None if value is None else whole(value, 1, MOST_STEPS, "steps")


def strength(value: Any) -> float:
    """Return an adapter strength."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 3:
        raise UserError("strength must be a number from 0 to 3", do="change it")
    return float(value)
