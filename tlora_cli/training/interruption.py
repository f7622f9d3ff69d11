"""Ctrl-C and SIGTERM: the first asks, the second insists."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interruption:
    """First Ctrl-C (or SIGTERM): stop after this step. Second: stop now."""

    NOTICE = b"\nstopping after this step and saving; press Ctrl-C again to stop at once\n"

    def __init__(self) -> None:
        self.asked = False

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        os.write(2, self.NOTICE)  # unbuffered: the signal may have come in the midst of a print

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take the signals over for the block; a thread other than the main one can't."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
