"""An option that holds one value, given twice: the last counts, and it is said."""

from __future__ import annotations

import pytest

from tlora_cli.cli.app import main

CASES = {
    "another file": (["train", "--config", "a", "--config", "b"], ["--config"]),
    "written with =": (["train", "--config=a", "--output", "x", "--config=b"], ["--config"]),
    "an adapter to evaluate": (["evaluate", "--adapter", "a", "--adapter", "b"], ["--adapter"]),
    "two": (["train", "--config", "a", "--config", "b", "--class", "x", "--class", "y"],
            ["--config", "--class"]),
    "many allowed": (["train", "--config", "a", "--set", "x=1", "--set", "y=2"], []),
    "once": (["train", "--config", "a"], []),
    "no such option": (["train", "--confog", "a", "--confog", "b"], []),
}  # fmt: skip


@pytest.mark.parametrize(("words", "twice"), CASES.values(), ids=CASES)
def test_it_is_said(
    words: list[str],
    twice: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["tlora", *words])
    assert main() == 2
    told = [line for line in capsys.readouterr().err.splitlines() if "is given twice" in line]
    assert told == [f"warning: {option} is given twice; the last counts" for option in twice]
