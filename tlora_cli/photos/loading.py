"""The progress bars of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_bars(local: bool) -> Iterator[None]:
    """Hide the bars of a local model that loads; a download keeps its own."""
    from transformers.utils import logging

    if local:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if local:
            logging.enable_progress_bar()
