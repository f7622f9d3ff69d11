"""Commands run on damaged input: they end with a status that is meant, and write whole pages."""

from __future__ import annotations

import sys
from pathlib import Path

from tlora_cli.cli.app import main


def run_command(*words: object) -> int:
    """Run `tlora` with these words in this process; return its status: done, or told what to do."""
    sys.argv = ["tlora", *map(str, words)]
    status = main()
    assert status in (0, 2, 3), f"exit status {status}"
    return status


def check_page(page: Path) -> None:
    """Check that a page is whole, and that nothing it shows has become a script of its own."""
    text = page.read_text("utf-8")
    assert "</html>" in text and "<script" not in text.lower().partition("<body")[2]
