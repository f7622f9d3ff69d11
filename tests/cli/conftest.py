"""What the tests of commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from training_runs import run

from tlora_cli.cli.app import main
from tlora_cli.foundation.errors import Status

Cli = Callable[..., str]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Return a function that runs `tlora` with arguments that must fail, and gives its message."""
    monkeypatch.chdir(tmp_path)

    def refuse(*arguments: object, status: Status = Status.MISTAKE) -> str:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["tlora", *map(str, arguments)])
        ended = main()
        out, err = capfd.readouterr()
        assert ended == status, err
        assert "Traceback" not in out + err
        message = err[err.index("error: ") :]
        assert "\n  fix:   " in message
        assert len(message.splitlines()) <= 4, message
        assert len(message) < 700
        return message

    return refuse


@pytest.fixture(scope="module")
def trained(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    outcome = run(tiny_sdxl, tmp_path_factory.mktemp("trained"), train__steps=1)
    assert outcome.adapter is not None
    return outcome.adapter
