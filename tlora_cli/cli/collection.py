"""Python's garbage collector, kept from looking through modules while they are imported."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import large libraries inside: nothing of them is garbage, then or later.

    Without it the collector walks again and again over a million objects that all stay.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
