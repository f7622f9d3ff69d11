"""The report of a run, written from its folder: while it trains, at its end, and when asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote

from tlora_cli.foundation.files import write_text
from tlora_cli.training.report.page import page
from tlora_cli.training.report.reading import read_run
from tlora_cli.training.run_folder import RunFolder

SHARE = 0.01
"""Share of a training's time that its reports may take."""


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder, atomically, and return it.

    Raises:
        UserError: if the folder holds no run, or can't be written.
    """
    run = RunFolder(folder)
    write_text(run.report, page(read_run(folder)))
    return run.report


class RunReports:
    """Keeps the report of a training up to date; no failure of it stops the training.

    Args:
        run: the folder.
        notify: shows the user a line.
    """

    def __init__(self, run: RunFolder, notify: Callable[[str], None]) -> None:
        self._run, self._notify = run, notify
        self._begun = self._warned = False
        self._next = 0.0

    def begin(self) -> None:
        """Take the folder to hold this run from here on; write its report, and say where it is."""
        self._begun = True
        if self._write():
            self._notify(f"report: {self._run.report} (kept up to date; open it in a browser)")

    def update(self) -> None:
        """Write the report, unless that would take more than its share of the time."""
        began = time.monotonic()
        if began < self._next:
            return
        self._write()
        ended = time.monotonic()
        self._next = ended + (ended - began) / SHARE

    def end(self) -> None:
        """Write the report for the last time, if the run has begun."""
        if self._begun:
            self._write()

    def _write(self) -> bool:
        try:
            write_report(self._run.path)
            return True
        except Exception as error:  # whatever it is, hours of training are worth more
            if not self._warned:
                self._warned = True
                reason = str(error).partition("\n")[0]
                self._notify(
                    f"the report can't be written ({type(error).__name__}: {reason}); the training "
                    f"goes on. Later: tlora report {quote(str(self._run.path))}"
                )
            return False
