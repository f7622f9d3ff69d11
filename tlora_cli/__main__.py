"""Run the command line, as `tlora` or `python -m tlora_cli`."""

from __future__ import annotations

import sys

from tlora_cli.cli.going_on import told_of_stop
from tlora_cli.foundation.stopping import Stopped, end_at_once_when_asked


def main() -> int:
    """Run the command line and return its exit status; signals are heard from here to the end."""
    end_at_once_when_asked(words_of_signal)
    from tlora_cli.cli.app import main as run  # most of the time before a command begins

    return run()


def words_of_signal(number: int) -> str:
    """Return what is said of a signal that comes before a command begins, or after its end."""
    name, how = told_of_stop(Stopped(number))
    return f"stopped by {name}; {how}\n"


if __name__ == "__main__":
    sys.exit(main())
