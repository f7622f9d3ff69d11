"""The signals while there is something to save: the first asks, the second insists."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tlora_cli.foundation.signals import HANGUP, leave_lost_terminal
from tlora_cli.foundation.stopping import Stopped, handling, raised


class Interruption:
    """First Ctrl-C, SIGTERM or SIGHUP: stop after this step. Second: stop now.

    A SIGHUP never insists: when a terminal is closed, several come by themselves.

    Attributes:
        asked: whether to stop after this step.
        number: of the first signal; None if there was none.
    """

    NOTICE = b"\nstopping after this step and saving; press Ctrl-C again to stop at once\n"

    def __init__(self) -> None:
        self.asked = False
        self.number: int | None = None
        self._by_hand = False

    def _on_signal(self, number: int, frame: Any) -> None:
        if number == HANGUP:
            leave_lost_terminal()
        elif self._by_hand:
            raise raised(number)
        else:
            self._by_hand = True
        if not self.asked:
            self.asked, self.number = True, number
            with suppress(OSError):  # the signal may mean that nobody reads
                os.write(2, self.NOTICE)  # unbuffered: it may have come in the midst of a print

    def stopped(self) -> Stopped:
        """Return what to raise once all is saved."""
        assert self.number is not None
        return Stopped(self.number)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take the signals over for the block; a thread other than the main one can't."""
        with handling(self._on_signal):
            yield
