"""`tlora studio` itself: what it needs, where it listens, and one in a folder."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tlora_cli.cli.app import main
from tlora_cli.foundation.files import locked
from tlora_cli.studio.drafts import STUDIO

HERE = Path(__file__).parents[2]


def told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["tlora", "studio", *words])
    status = main()
    return status, capfd.readouterr().err


def test_without_the_extra_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec

    def lacking(name: str, *more: Any) -> Any:
        return None if name == "uvicorn" else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", lacking)
    status, said = told(monkeypatch, capfd)
    assert status == 3 and "uvicorn" in said and "pip install 'tlora[studio]'" in said


def test_a_taken_port_and_a_second_studio_are_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        status, said = told(monkeypatch, capfd, "--port", port)
    assert status == 2 and "Address already in use" in said and "another --port" in said
    status, said = told(monkeypatch, capfd, "--host", "no.such.host.example", "--port", "0")
    assert status == 2 and "can't listen on no.such.host.example" in said
    with locked(STUDIO):
        status, said = told(monkeypatch, capfd, "--port", "0")
    assert status == 4 and "a studio is open in this folder already" in said


def test_the_other_commands_import_none_of_it() -> None:
    code = (
        "import sys; from tlora_cli.cli.commands import app; "
        "own = ('starlette', 'uvicorn', 'tlora_cli.studio'); "
        "print([name for name in sys.modules if name.startswith(own)])"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=HERE)
    assert done.stdout.strip() == "[]"
