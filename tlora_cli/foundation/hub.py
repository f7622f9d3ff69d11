"""Whether the Hub can be reached at all, found out quickly before a library asks at length."""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants

from tlora_cli.foundation.bundled import is_base
from tlora_cli.foundation.hub_errors import has_own_way

PATIENCE = 4.0
"""Seconds that a connection may take. The libraries try for half a minute, and say nothing."""
FRESH = 60.0
"""Seconds for which an answer holds."""

_answers: dict[str, tuple[float, bool]] = {}


@contextmanager
def asking(model: str) -> Iterator[None]:
    """Load a model within; where the Hub can't be reached, from its cache alone, and at once.

    Args:
        model: a folder, a file or a bundled base, for which nobody is asked, or a Hub id.
    """
    here = is_base(model) or Path(model).expanduser().exists()
    if here or constants.HF_HUB_OFFLINE or reachable(constants.ENDPOINT):
        yield
        return
    warnings.warn(
        f"{constants.ENDPOINT} can't be reached; {model} is looked for in "
        f"{constants.HF_HUB_CACHE} alone",
        stacklevel=3,
    )
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def reachable(address: str) -> bool:
    """Return whether something listens at an address; True where that can't be told quickly.

    Through a proxy, and with wrong settings, only the library that asks can tell.
    """
    if has_own_way():
        return True
    known = _answers.get(address)
    if known is None or time.monotonic() - known[0] > FRESH:
        known = _answers[address] = (time.monotonic(), _knock(address))
    return known[1]


def _knock(address: str) -> bool:
    parts = urlsplit(address)
    if not parts.hostname:
        return True
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=PATIENCE).close()
    except (OSError, ValueError):
        return False
    return True
