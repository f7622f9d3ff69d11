"""Cells in processes of their own, and the line that tells of them."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tlora_cli import UserError
from tlora_cli.comparison import local
from tlora_cli.comparison import run_cell as work_module
from tlora_cli.comparison.cell_job import CellJob
from tlora_cli.comparison.engine import Ended
from tlora_cli.comparison.local import LocalEngine
from tlora_cli.comparison.progress import ProgressLine
from tlora_cli.comparison.tasks import Task
from tlora_cli.foundation.errors import Status
from tlora_cli.foundation.files import write_atomically
from tlora_cli.foundation.stopping import Stopped


class Heard:
    """A report that remembers."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.lines: list[tuple[str, str]] = []
        self.ends: dict[str, str] = {}
        self.kinds: dict[str, Status] = {}

    def started(self, cell: str) -> None:
        self.begun.append(cell)

    def said(self, cell: str, line: str) -> None:
        self.lines.append((cell, line))

    def ended(self, cell: str, how: Ended) -> None:
        self.ends[cell] = how.error
        self.kinds[cell] = how.kind


def task(name: str, folder: Path) -> CellJob:
    return CellJob(Task(name, folder / name, {}, {"metrics": {}, "mask": None}, 1))


def pretend(task: CellJob, notify: Any, log: Any) -> Ended:
    """What a cell may do, by its name."""
    notify(f"gpu {os.environ.get('CUDA_VISIBLE_DEVICES')}")
    if task.name.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if task.name.startswith("exits"):
        os._exit(3)
    if task.name.startswith("slow"):
        (task.folder / "here").touch()
        beside = [folder for folder in task.folder.parent.iterdir() if (folder / "here").exists()]
        time.sleep(0.3)
        notify(f"beside {len(beside)}")
        (task.folder / "here").unlink()
    wrong = Ended("it is wrong", Status.MISSING)
    return wrong if task.name.startswith("wrong") else Ended()


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "START_METHOD", "fork")
    monkeypatch.setattr(work_module, "attempt", pretend)


@pytest.mark.usefixtures("forked")
def test_what_becomes_of_a_process_is_told(tmp_path: Path) -> None:
    heard = Heard()
    names = ["good", "killed", "wrong", "exits", "good again"]
    LocalEngine(2).run([task(name, tmp_path) for name in names], heard)
    assert heard.begun == names
    assert heard.ends == {
        "good": "",
        "killed": "its process was killed by SIGKILL without a result, perhaps for want of memory",
        "wrong": "it is wrong",
        "exits": "its process ended without a result",
        "good again": "",
    }
    assert {name: kind for name, kind in heard.kinds.items() if kind} == {
        "killed": Status.NO_ROOM,
        "wrong": Status.MISSING,
        "exits": Status.FAULT,
    }
    assert (tmp_path / "good" / "log.txt").read_text().startswith("gpu ")


class Asking(Heard):
    """One that asks the program to stop as soon as a cell says something."""

    def said(self, cell: str, line: str) -> None:
        super().said(cell, line)
        signal.raise_signal(signal.SIGTERM)


def writing(task: CellJob, notify: Any, log: Any) -> Ended:
    """Be in the midst of a write, as before a training listens to signals by itself."""

    def write(file: Path) -> None:
        file.write_text("half")
        notify("writing")
        time.sleep(60)

    write_atomically(task.folder / "recipe.yaml", write)
    return Ended()


@pytest.mark.usefixtures("forked")
def test_what_a_cell_was_writing_when_it_was_asked_to_stop_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "attempt", writing)
    heard = Asking()
    with pytest.raises(Stopped):
        LocalEngine(1).run([task("cell", tmp_path)], heard)
    assert heard.lines == [("cell", "writing")] and heard.ends == {}
    assert {file.name for file in (tmp_path / "cell").iterdir()} == {"log.txt"}
    assert "Traceback" not in (tmp_path / "cell" / "log.txt").read_text()


@pytest.mark.usefixtures("forked")
def test_each_worker_has_a_gpu_of_its_own(tmp_path: Path) -> None:
    heard = Heard()
    names = [f"slow{number}" for number in range(5)]
    LocalEngine(None, ["3", "GPU-7"]).run([task(name, tmp_path) for name in names], heard)
    said = [line for _, line in heard.lines]
    assert {line for line in said if line.startswith("gpu")} == {"gpu 3", "gpu GPU-7"}
    assert max(int(line.split()[1]) for line in said if line.startswith("beside")) <= 2
    assert set(heard.ends.values()) == {""}
    with pytest.raises(UserError, match="3 workers for 2 GPUs"):
        LocalEngine(3, ["0", "1"])


def test_the_line_says_what_is_going_on() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=120, color_system=None)
    short = Ended("the GPU ran out of memory\n  fix: lower it", Status.NO_ROOM)
    with ProgressLine(console, 5, 1) as line:
        line.started("lora-r2")
        line.said("lora-r2", "step 3/6  loss 0.1 [x]")
        line._bar.refresh()
        line.started("oft")
        line.said("oft", "word " * 60)
        line._bar.refresh()
        line.ended("oft", short)
        line.ended("lora-r2", Ended())
        line.said("oft", "too late")
    text = output.getvalue()
    assert "lora-r2: step 3/6  loss 0.1 [x]" in text
    assert "\x1b[1A" not in text, "the line never takes two"
    assert "[1/5] oft: failed after 0:00: the GPU ran out of memory\n" in text
    assert "[2/5] lora-r2: done in 0:00" in text
    assert "cells 2/5" in text and "1 failed" in text
    assert line.failed == {"oft": short}
    assert "too late" not in text
