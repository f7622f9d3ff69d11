"""All that commands say goes through here: as text for people, or as JSON objects for programs.

Text: results and advice on standard output, progress, warnings and errors on standard error. JSON:
all on standard output, one object a line (`events.py`).
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, cast

from rich.console import Console

from tlora_cli.cli.event_schema import check_event
from tlora_cli.cli.events import VERSION
from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.line_stream import LineStream

LEVELS = ("debug", "info", "warning", "error")
"""Words of `--log-level`, from the most to the least that is said."""
WARNING = "warning: "
"""Start of a line that warns."""
WIDTH = 10_000
"""Width of lines that are taken apart again: none is wrapped."""


@dataclass
class Reporter:
    """The voice of a command.

    Attributes:
        command: its name, as `recipe check`.
        as_json: whether programs read it.
        level: what is said at least: one of `LEVELS`. Results and errors always are.
    """

    command: str = ""
    as_json: bool = False
    level: str = "info"

    @property
    def wordy(self) -> bool:
        """Whether more than warnings, errors and results is said."""
        return self.says("info")

    def says(self, level: str) -> bool:
        """Return whether something of a level is said."""
        return LEVELS.index(level) >= LEVELS.index(self.level)

    def result(self, event: str, text: Iterable[str] | str = (), /, **fields: Any) -> None:
        """Say what has come out, however little is to be said.

        Args:
            event: its name, in `events.EVENTS`.
            text: the same in lines for people.
            fields: of the event.
        """
        if self.as_json:
            self._object(event, fields)
        else:
            for line in [text] if isinstance(text, str) else text:
                self.print(line)

    def event(self, event: str, /, **fields: Any) -> None:
        """Say to programs alone how far it is, unless little is to be said."""
        if self.as_json and self.wordy:
            self._object(event, fields)

    def inform(self, text: str, *, err: bool = False) -> None:
        """Say what is being done, or what could be done next.

        Args:
            text: a line or more; a line that begins with `warning: ` is one.
            err: whether people find it on standard error, as progress.
        """
        if text.startswith(WARNING):
            self.warn(text.removeprefix(WARNING))
        else:
            self._message("info", text, text, err)

    def advise(self, *lines: str) -> None:
        """Say to people alone what the fields of a result say already, or what to do next."""
        if not self.as_json:
            for line in lines:
                self.inform(line)

    def warn(self, text: str) -> None:
        """Say what may not be as meant."""
        self._message("warning", text, f"{WARNING}{text}", err=True)

    def error(self, error: UserError, text: str = "") -> None:
        """Say what is wrong; people read `text` in place of the error's own."""
        if self.as_json:
            self._object(
                "error",
                {
                    "status": int(error.kind),
                    "kind": error.kind.word,
                    "what": error.what,
                    "where": error.where,
                    "fix": error.do,
                },
            )
        else:
            print(text or f"error: {error}", file=sys.stderr)

    def stopped(self, signal: str, text: str) -> None:
        """Say that a signal has ended the command, and how to go on."""
        if self.as_json:
            self._object("stopped", {"signal": signal, "text": text})
        else:
            print(f"stopped by {signal}; {text}", file=sys.stderr)

    def end(self, status: int) -> int:
        """Say to programs that this was all; return the status."""
        if self.as_json:
            kind = Status(status) if status in set(Status) else Status.FAULT
            self._object("end", {"status": int(kind), "kind": kind.word})
        return status

    def console(self) -> Console:
        """Return where progress is shown: live on a terminal, else in lines at their levels."""
        if self.wordy and not self.as_json:
            return Console(stderr=True)
        lines = cast(IO[str], LineStream(lambda line: self.inform(line, err=True)))
        return Console(file=lines, width=WIDTH, force_terminal=False, color_system=None)

    def _message(self, level: str, text: str, line: str, err: bool) -> None:
        if not self.says(level):
            return
        if self.as_json:
            self._object("message", {"level": level, "text": text})
        else:
            self.print(line, err=err)

    def print(self, line: str, *, err: bool = False) -> None:
        """Print a line for people."""
        print(line, file=sys.stderr if err else sys.stdout, flush=True)

    def _object(self, event: str, fields: dict[str, Any]) -> None:
        check_event(event, fields)
        told = {"version": VERSION, "command": self.command, "event": event, **fields}
        print(json.dumps(_finite(told), allow_nan=False), flush=True)


reporter = Reporter()
"""The reporter of the command that runs; `begin` sets it."""


def begin(command: str = "", as_json: bool = False, level: str = "info") -> None:
    """Have all that follows be said of a command, in one way."""
    reporter.command, reporter.as_json, reporter.level = command, as_json, level


@contextmanager
def warnings_reported() -> Iterator[None]:
    """Have Python's warnings said within as the command's own, without a place in the code."""
    before = warnings.showwarning

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        reporter.warn(str(message))

    if os.environ.get("TLORA_DEBUG") != "1":
        warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def _finite(value: Any) -> Any:
    """Return a value without the numbers that JSON doesn't have: null stands for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
