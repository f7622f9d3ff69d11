"""A trial: the same run cut short, in a process of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from validations import contents, recipe

from tlora_cli.foundation.devices import peak_memory
from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.stopping import Stopped
from tlora_cli.tools.preflight import trial_run
from tlora_cli.tools.preflight.findings import Finding
from tlora_cli.training.run_folder import differences


def test_a_trial_is_the_same_run_cut_short(tiny_sdxl: Path, tmp_path: Path) -> None:
    given = recipe(
        tiny_sdxl, tmp_path, train__steps=2000, train__accumulation=2,
        concept__prior={"count": 50},
        train__preview={"every": 100, "prompts": ["V*", "x"], "count": 3},
    )  # fmt: skip
    short = trial_run.trial_recipe(given, tmp_path / "trial")
    changes = differences(given.model_dump(by_alias=True), short.model_dump(by_alias=True))
    assert {key: now for key, _, now in changes} == {
        "concept.prior.count": 1,
        "output.dir": str(tmp_path / "trial"),
        "train.checkpoint.every": 1,
        "train.execution": "compile",  # as 2000 steps would be run
        "train.preview.count": 1,
        "train.preview.every": 1,
        "train.preview.prompts": ["V*"],
        "train.steps": 2,
    }


@pytest.mark.full
def test_a_trial(tiny_sdxl: Path, tmp_path: Path) -> None:
    preview = {"prompts": ["a V*"]}
    given = recipe(tiny_sdxl, tmp_path, train__preview=preview, train__steps=100)
    before = contents(tmp_path)
    found = list(trial_run.try_recipe(given))
    assert [(one.level, one.about) for one in found] == [
        ("ok", "trial"), ("ok", "time"), ("ok", "memory"),
    ]  # fmt: skip
    assert "a preview" in found[1].text and "the whole run about" in found[1].text
    assert contents(tmp_path) == before


@pytest.mark.parametrize("outcome", [KeyboardInterrupt, UserError("no", "here", "mend")])
def test_a_trial_that_fails_leaves_nothing(
    outcome: Any, tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, words: list[str], tensorboard: bool) -> None:
        assert (folder / "recipe.yaml").exists() and folder.parent == tmp_path
        raise outcome

    given = recipe(tiny_sdxl, tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(trial_run, "_command", fail)
    if outcome is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            list(trial_run.try_recipe(given))
    else:
        assert list(trial_run.try_recipe(given)) == [
            Finding("problem", "trial", "no\nhere", "mend")
        ]
    assert contents(tmp_path) == before


def test_a_trial_that_is_terminated_leaves_nothing(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its folder nor its process."""
    given = recipe(tiny_sdxl, tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(
        trial_run, "_PROGRAM", "import os, time; print(os.getpid()); time.sleep(60)"
    )
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    started: list[int] = []

    def end_it() -> None:
        while not started:
            time.sleep(0.02)
            started.extend(int(log.read_text() or 0) for log in tmp_path.glob(".tlora-*/log"))
            if started == [0]:
                started.clear()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_it, daemon=True).start()
    with pytest.raises(Stopped) as ended:
        list(trial_run.try_recipe(given))
    assert ended.value.number == signal.SIGTERM
    assert contents(tmp_path) == before
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


def test_a_process_that_is_killed_is_told(tmp_path: Path) -> None:
    code = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    with pytest.raises(UserError) as error:
        trial_run._python(tmp_path, ["-c", code])
    assert "ended by SIGKILL" in error.value.what and "out of memory" in error.value.do


def test_the_memory_of_a_process_is_its_own(tmp_path: Path) -> None:
    """Not that of this one, which is larger and starts it."""
    code = (
        "import runpy; x = bytearray(200_000_000); from pathlib import Path\n"
        "print([l.split()[1] for l in open('/proc/self/status') if 'VmHWM' in l][0])"
    )
    assert 200e6 < int(trial_run._python(tmp_path, ["-c", code])) * 1024 < 300e6
    assert peak_memory(torch.device("cpu")) > 300e6


def test_an_error_of_the_command_is_told_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        trial_run._python(
            tmp_path, ["-m", "tlora_cli", "train", "--config", f"{tmp_path}/none.yaml"]
        )
    assert error.value.args == (
        "there is no such recipe", str(tmp_path / "none.yaml"), "check the path", Status.MISTAKE
    )  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["log"]
