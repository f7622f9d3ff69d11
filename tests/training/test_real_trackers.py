"""The real wandb and trackio, where they are installed."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from training_runs import ROOT

REAL = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from training_runs import record
from tlora_cli.training.trackers.background import Trackers
from tlora_cli.training.trackers.base import TrackedRun
from tlora_cli.training.run_folder import RunFolder
run = RunFolder(Path({folder!r}))
for first, last in ((1, 3), (4, 5)):
    tracked = TrackedRun(run, "tests", "0123456789ab", {{"train": {{"steps": 5}}}}, first - 1)
    trackers = Trackers([{name!r}], tracked, lambda text: print("SAID", text))
    for step in range(first, last + 1):
        trackers.log(record(step))
    trackers.end()
"""


def real(name: str, folder: Path) -> str:
    """Let a real package take five steps in two sittings; return what was said."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    code = REAL.format(
        root=str(ROOT), tests=str(Path(__file__).parents[1]), folder=str(folder), name=name
    )
    environment = {**os.environ, "WANDB_MODE": "offline", "TRACKIO_DIR": str(folder / "trackio")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_real_wandb_writes_the_run_offline(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert real("wandb", folder).count("SAID wandb is set to offline") == 2
    sittings = sorted((folder / "wandb").glob("offline-run-*-0123456789ab/*.wandb"))
    written = b"".join(file.read_bytes() for file in sittings)
    assert written.count(b"train/steps_per_second") >= 3


def test_the_real_trackio_goes_on_with_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert "SAID" not in real("trackio", folder)
    [file] = (folder / "trackio").glob("*.db")
    rows = sqlite3.connect(file).execute("select run_name, step, metrics from metrics order by id")
    found = [(name, step, json.loads(values)["train/loss"]) for name, step, values in rows]
    assert found == [("run-0123456789ab", step, 0.5) for step in range(1, 6)]
