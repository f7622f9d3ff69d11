"""Run the command line, as `tlora` or `python -m tlora_cli`."""

from __future__ import annotations

import sys

from tlora_cli.foundation.signals import end_at_once_when_asked


def main() -> int:
    """Run the command line and return its exit status; signals are heard from here to the end."""
    end_at_once_when_asked()
    from tlora_cli.cli.app import main as run  # most of the time before a command begins

    return run()


if __name__ == "__main__":
    sys.exit(main())
