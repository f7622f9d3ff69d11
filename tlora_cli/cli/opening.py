"""Open a page in the user's browser."""

from __future__ import annotations

from pathlib import Path

from tlora_cli.cli.reporter import reporter


def open_page(page: Path) -> None:
    """Open a page in the browser; say so where there is none."""
    import webbrowser

    if not webbrowser.open(page.absolute().as_uri()):
        reporter.inform(f"no browser could be started; open this file in one: {page}", err=True)
