"""A sample of `scripts/disturb.py`: signals, process 1, folders that can't be written."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from breaking import disturbed
from breaking.commands import COMMANDS, Desk
from breaking.disturbed import Ended, expected

from tlora_cli.comparison import local

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def desk(tiny_sdxl: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(local, "START_METHOD", "fork")
    return Desk(tiny_sdxl, trained, trained.parent, tmp_path / "out")


def check(ended: Ended, allowed: tuple[int, ...]) -> None:
    assert not ended.faults(allowed), ended.said


@pytest.mark.parametrize("first", [False, pytest.param(True, marks=needs_root)])
@pytest.mark.parametrize(
    ("name", "number", "after"),
    [("train", signal.SIGTERM, 1.0), ("sample", signal.SIGHUP, 0.5), ("batch", signal.SIGINT, 1.0)],
)
def test_a_signal(name: str, number: signal.Signals, after: float, first: bool, desk: Desk) -> None:
    if first and name != "train":
        pytest.skip("one command is enough for a sample")
    desk.folder.mkdir()
    words = COMMANDS[name](desk, desk.folder)
    check(disturbed.run(words, desk.folder, number, after, first), expected("", number))


@needs_root
@pytest.mark.parametrize(
    "name", ["train", pytest.param("batch", marks=pytest.mark.full), "convert", "sample"]
)
def test_a_folder_that_cannot_be_written(name: str, desk: Desk) -> None:
    with disturbed.read_only(desk.folder) as folder:
        ended = disturbed.run(COMMANDS[name](desk, folder), folder)
    check(ended, expected("read-only"))
    assert "Read-only file system" in ended.said


@needs_root
def test_batch_on_a_full_disk(desk: Desk) -> None:
    with disturbed.full(desk.folder) as folder:
        ended = disturbed.run(COMMANDS["batch"](desk, folder), folder)
    check(ended, expected("full"))


def test_what_is_out_of_order_is_found() -> None:
    good = Ended(143, "stopped by SIGTERM; again:\n", 1.0, ["a.png"])
    assert good.faults((0, 143)) == [] and good.headline == "stopped by SIGTERM; again:"
    for change, found in (
        (Ended(-15, good.said, 1, []), "status -15"),
        (Ended(143, "Traceback (most recent", 1, []), "Traceback"),
        (Ended(143, "", 1, []), "no word"),
        (Ended(143, good.said, 1, [".tlora-unfinished-a-1"]), "left .tlora-unfinished-a-1"),
    ):
        assert found in change.faults((0, 143))
