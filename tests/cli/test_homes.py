"""Paths that begin with a home that is nobody's: each command says one thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tlora_cli.foundation.errors import Status

Cli = Callable[..., str]
NOBODY = "~nobody-of-that-name"
Words = Callable[[Path, Path], list[Any]]
COMMANDS: dict[str, tuple[Words, Status, str]] = {
    "an adapter and its strength": (
        lambda adapter, tmp: [
            "sample",
            "--prompt",
            "x",
            "--adapter",
            f"{NOBODY}/a.safetensors:0.5",
        ],
        Status.MISTAKE,
        "the adapter file does not exist",
    ),
    "an adapter with a name": (
        lambda adapter, tmp: [
            "sheet",
            f"mine={NOBODY}/a",
            "--prompt",
            "x",
            "--output",
            tmp / "s.png",
        ],
        Status.MISTAKE,
        "the adapter file does not exist",
    ),
    "a base": (
        lambda adapter, tmp: ["merge", adapter, "--base", f"{NOBODY}/b", "--output", tmp / "m"],
        Status.MISSING,
        f"base not found: {NOBODY}/b",
    ),
    "an encoder": (
        lambda adapter, tmp: [
            *("evaluate", "--adapter", adapter, "--metric", f"clip={NOBODY}/clip"),
            *("--mask", "none", "--output", tmp / "scores"),
        ],
        Status.MISSING,
        f"the clip checkpoint can't be loaded: there is no folder {NOBODY}/clip",
    ),
    "a segmenter": (
        lambda adapter, tmp: [
            *("mask", "toy:momo/1", "--class", "cat", "--model", f"{NOBODY}/s", "--out", tmp / "m"),
        ],
        Status.MISSING,
        f"the masking checkpoint can't be loaded: there is no folder {NOBODY}/s",
    ),
    "a folder to write into": (
        lambda adapter, tmp: ["analyze", "--adapter", adapter, f"--output={NOBODY}/a"],
        Status.MISTAKE,
        f"{NOBODY} is the home of nobody here",
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_one_thing(name: str, cli: Cli, trained: Path, tmp_path: Path) -> None:
    words, status, text = COMMANDS[name]
    assert text in cli(*words(trained, tmp_path), status=status)
    assert not (tmp_path / NOBODY).exists()
