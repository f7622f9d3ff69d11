"""What the tests of training share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tlora_cli.cli.app import main


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `tlora` and gives status, output and messages."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["tlora", *map(str, arguments)])
        return main(), *capfd.readouterr()

    return call
