"""A text file that gives each line to a function: progress of a console, taken apart again."""

from __future__ import annotations

from collections.abc import Callable


class LineStream:
    """Stands where a text file is written.

    Args:
        notify: told each line that isn't blank.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._rest = ""

    def write(self, text: str) -> int:
        """Take text; what follows the last line end waits."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._notify(line.strip())
        return len(text)

    def flush(self) -> None:
        """Do nothing: lines are given at once."""

    def isatty(self) -> bool:
        """Return that this is no terminal."""
        return False
