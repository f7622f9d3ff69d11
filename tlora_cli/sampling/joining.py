"""Several adapters on one base: each adds its own update, under its own mask and strength.

y = W x + s1 B1 M1 A1 x + s2 B2 M2 A2 x: low-rank updates of one layer add up whatever their ranks,
masks and schedules are. Methods that replace the weights, or learn a word, have no such sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tlora_cli.formats import OpenAdapter
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import expanded
from tlora_cli.methods import METHODS

AUTO = "auto"


class Named(NamedTuple):
    """An adapter file and its strength; 1 is as trained."""

    path: Path
    strength: float = 1.0


def named_adapter(text: str) -> Named:
    """Return what FILE or FILE:STRENGTH names; a file whose own name ends so goes first.

    Raises:
        UserError: if the file is there, and what stands behind the colon is no number.
    """
    whole = expanded(text)
    file, colon, number = text.rpartition(":")
    if not colon or not file or whole.exists():
        return Named(whole)
    try:
        strength = float(number)
    except ValueError:
        strength = math.nan
    if math.isfinite(strength):
        return Named(expanded(file), strength)
    if expanded(file).exists():
        raise UserError(
            f"the strength {number!r} is no number",
            where=f"--adapter {text}",
            do=f"write it like this: --adapter {file}:0.8",
        )
    return Named(whole)


def check_joinable(opened: Sequence[OpenAdapter]) -> list[str]:
    """Return what there is to say of adapters that are drawn with together.

    Raises:
        UserError: if they can't be joined.
    """
    first = opened[0]
    (family, base), said = (first.origin[0], first.origin[1]), []
    for one in opened:
        own, info = one.origin
        method = METHODS.get(info.method or "")
        if method is not None and not method.low_rank:
            raise _apart(
                f"{_name(one)} was trained with {method.name}, which does not add to the weights "
                "but replaces them, or learns a word",
            )
        if one.learned_word:
            raise _apart(f"{_name(one)} has learned a word of its own beside the update")
        if None not in (own, family) and own != family:
            raise _apart(f"{_name(one)} is for {own}, and {_name(first)} is for {family}")
        objectives = {info.objective or AUTO, base.objective or AUTO}
        if len(objectives - {AUTO}) > 1:
            raise _apart(
                f"{_name(one)} is trained for the objective {info.objective}, and "
                f"{_name(first)} for {base.objective}"
            )
        if len(objectives) > 1:
            said.append(f"{_name(one)} says another objective than {_name(first)}, which counts")
        if None not in (info.base_model, base.base_model) and info.base_model != base.base_model:
            said.append(
                f"{_name(one)} was trained on {info.base_model}, and {_name(first)} on "
                f"{base.base_model}: on one base, one of them may look otherwise than it should"
            )
    files = [one.given.resolve() for one in opened]
    if len(set(files)) < len(files):
        said.append("an adapter is named twice: its strengths add up")
    words = [one.origin[1].concept for one in opened]
    known = [one for one in words if one]
    if len(known) > 1 and len(set(known)) == 1:
        said.append(f"the adapters have one name for what they learned, {known[0]!r}: it will mix")
    return said


def _apart(why: str) -> UserError:
    return UserError(
        f"these adapters can't be joined: {why}",
        where="--adapter",
        do="draw with one at a time, or with adapters of low-rank methods for one base",
    )


def _name(opened: OpenAdapter) -> str:
    return opened.given.name


def joined_concept(words: Sequence[str | None]) -> str | None:
    """Return the words for V* of several adapters: those they share; None if they differ."""
    known = list(dict.fromkeys(one for one in words if one))
    return known[0] if len(known) == 1 else None
