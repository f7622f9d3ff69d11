"""Names of files and folders as people write them: ~, $HOME and ${DATA} are filled in."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import writable

_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^{}]*)\})")
_OF_WINDOWS = re.compile(r"%[A-Za-z_]\w*%")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def filled_path(text: str) -> str:
    """Return a path with the environment's variables in it; ~ is left for `expanded`.

    A path that is there under the very name that was given is left as it is.

    Raises:
        ValueError: if a variable isn't set, or something in the path can't be meant.
    """
    if control := _CONTROL.search(text):
        raise ValueError(
            f"the path {text!r} holds the control character {control[0]!r}; in double quotes a "
            "backslash starts an escape, so write the path in single quotes, or with /"
        )
    if _there(text):
        return text
    filled = _VARIABLE.sub(lambda found: _value(found[1] or found[2], found[0], text), text)
    if found := _OF_WINDOWS.search(filled):
        raise ValueError(
            f"{found[0]} in the path {text!r} is filled in by nothing; write "
            f"${{{found[0].strip('%')}}}, or the path itself"
        )
    try:
        writable(filled)
    except UserError as error:
        raise ValueError(f"{error.what}, in the path {text!r}; {error.do}") from error
    return filled


def _there(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def _value(name: str, written: str, text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        if not written.startswith("${"):  # $5 is no variable
            return written
        raise ValueError(f"{written} in the path {text!r} is no variable; write ${{NAME}}")
    value = os.environ.get(name)
    if not value:
        how = "is empty" if value == "" else "is not set"
        raise ValueError(
            f"the variable {name} in the path {text!r} {how}; set it, or write the path itself"
        )
    return value
