"""The folder for what can be computed again: of this user, and shared by all runs."""

from __future__ import annotations

import os
from pathlib import Path

from tlora_cli.foundation.files import writable
from tlora_cli.foundation.packages import PRODUCT

VARIABLE = "TLORA_CACHE"
"""Environment variable that names another folder."""


def cache_folder(name: str) -> Path:
    """Return a subfolder of the cache; it may not exist yet.

    Args:
        name: of what is kept there, such as `places`.
    """
    if own := os.environ.get(VARIABLE):
        return writable(own) / name
    return writable(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / PRODUCT / name
