"""Whether the Hub can be reached at all, found out quickly before a library asks at length."""

from __future__ import annotations

import re
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from huggingface_hub import constants

from tlora_cli.foundation.bundled import is_base
from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.files import expanded
from tlora_cli.foundation.hub_errors import has_own_way

PATIENCE = 4.0
"""Seconds that a connection may take. The libraries try for half a minute, and say nothing."""
FRESH = 60.0
"""Seconds for which an answer holds."""

_answers: dict[str, tuple[float, bool]] = {}
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_hub_id(name: str) -> bool:
    """Return whether a name can be that of a repository: OWNER/NAME."""
    return bool(_ID.fullmatch(name))


def folder_or_id(model: str, what: str) -> str:
    """Return a model's folder with `~` filled in, or its Hub id.

    Args:
        model: as it was given.
        what: it is, for the message.

    Raises:
        UserError: if it is no Hub id, and not there.
    """
    path = expanded(model)
    if path.exists():
        return str(path)
    if is_hub_id(model):
        return model
    raise UserError(
        f"{what} can't be loaded: there is no folder {model}",
        where=model,
        do="name a folder that is there, or a Hub id, which is OWNER/NAME",
        kind=Status.MISSING,
    )


@contextmanager
def asking(model: str) -> Iterator[None]:
    """Load a model within; where the Hub can't be reached, from its cache alone, and at once.

    Args:
        model: a folder, a file or a bundled base, for which nobody is asked, or a Hub id.
    """
    here = is_base(model) or expanded(model).exists()
    if here or not is_hub_id(model) or constants.HF_HUB_OFFLINE or reachable(constants.ENDPOINT):
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
