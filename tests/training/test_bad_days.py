"""What happens to a run between its sittings: through the command line, nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from breaking.kills import check_what_is_left, sit
from training_runs import draw_picture, mounted, recipe_values, run, same_tensors, write_recipe

from tlora_cli.cli.app import main
from tlora_cli.foundation.errors import Status
from tlora_cli.training.run_folder import RunFolder

Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Return a function that runs `tlora` in this process and gives its status and message."""

    def tlora(*arguments: object) -> tuple[int, str]:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["tlora", *map(str, arguments)])
        status = main()
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return status, err

    return tlora


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a real file system with room for a run, but not for two."""
    with mounted(tmp_path / "disk", "16m") as folder:
        yield folder


@pytest.fixture
def stopped(tiny_sdxl: Path, tmp_path: Path) -> RunFolder:
    """Return a run of 6 steps that was killed after the save of step 4."""
    run(tiny_sdxl, tmp_path, train__steps=4)
    folder = RunFolder(tmp_path / "run")
    folder.adapter.unlink()
    folder.recipe.write_text(folder.recipe.read_text().replace("steps: 4\n", "steps: 6\n", 1))
    return folder


def test_a_picture_that_vanished_before_the_run_is_resumed(
    cli: Cli, stopped: RunFolder, tiny_sdxl: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "photo.png"
    picture.rename(tmp_path / "elsewhere.png")
    before = contents(stopped.path)
    status, message = cli("train", "--resume", "--output", stopped.path)
    assert status == 2
    assert f"there is no file '{picture}'" in message
    assert "where: concept.images" in message and "fix:" in message
    assert contents(stopped.path) == before
    (tmp_path / "elsewhere.png").rename(picture)
    assert cli("train", "--resume", "--output", stopped.path)[0] == 0
    whole = run(tiny_sdxl, tmp_path / "whole")
    assert whole.adapter and same_tensors(whole.adapter, stopped.adapter)


def test_a_run_killed_between_its_last_save_and_its_last_previews(
    cli: Cli, tiny_sdxl: Path, tmp_path: Path
) -> None:
    """They are drawn when it is resumed, though no step is left."""
    run(tiny_sdxl, tmp_path, train__preview={"every": 3, "prompts": ["a V*"]})
    folder = RunFolder(tmp_path / "run")
    whole = contents(folder.previews)
    folder.adapter.unlink()
    shutil.rmtree(folder.previews / "step-000006")
    assert cli("train", "--resume", "--output", folder.path)[0] == 0
    assert contents(folder.previews) == whole and len(whole) == 3
    assert folder.adapter.exists()


def test_a_picture_that_was_replaced_before_the_run_is_resumed(
    cli: Cli, stopped: RunFolder, tmp_path: Path
) -> None:
    draw_picture(tmp_path / "photo.png", seed=5)
    before = contents(stopped.path)
    status, message = cli("train", "--resume", "--output", stopped.path)
    assert status == 2
    assert (
        "pictures, masks or captions have changed" in message
        and "put the old files back" in message
    )
    assert contents(stopped.path) == before


def test_a_clock_that_was_put_back_changes_nothing(
    cli: Cli,
    stopped: RunFolder,
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Files of the first sitting are ten years younger than now, and older ones come later."""
    now = time.time()
    for number, path in enumerate(sorted(stopped.path.rglob("*"))):
        os.utime(path, (now + 3e8 - 1000 * number,) * 2)
    ticks = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: 1e8 - next(ticks))  # it even runs backward
    monkeypatch.setattr(time, "time_ns", lambda: int(1e17) - 10**9 * next(ticks))
    status, message = cli("train", "--resume", "--output", stopped.path)
    assert status == 0
    assert "resuming after step 4 of 6" in message
    assert cli("report", stopped.path)[0] == 0
    monkeypatch.undo()
    kept = sorted(path.name for path in stopped.checkpoints.iterdir())
    assert kept == ["checkpoint-000004", "checkpoint-000006", "start.safetensors"]
    whole = run(tiny_sdxl, tmp_path / "whole")
    assert whole.adapter and same_tensors(whole.adapter, stopped.adapter)
    records = [json.loads(line) for line in stopped.metrics.read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds) and seconds[-1] < 600


def test_two_runs_in_one_folder(cli: Cli, tiny_sdxl: Path, tmp_path: Path) -> None:
    """The second is refused while the first goes on, and has touched nothing."""
    settings = {"train__steps": 100_000, "train__execution": "eager"}
    config = write_recipe(tiny_sdxl, tmp_path, **settings)
    folder = RunFolder(tmp_path / "run")
    first = os.fork()
    if first == 0:
        os._exit(sit(["train", "--config", str(config)], folder.path, None, None) & 0x7F)
    try:
        wait_for_steps(folder, 3)
        for options in (["--resume"], []):
            status, message = cli("train", "--config", config, *options)
            assert status == Status.LATER
            assert "another tlora run is working in this folder" in message
            assert "wait for it to end, or choose another output.dir" in message
        wait_for_steps(folder, folder.metrics.read_text().count("\n") + 1)  # the first goes on
    finally:
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        for child in (*map(int, children), first):
            os.kill(child, signal.SIGKILL)
        os.waitpid(first, 0)
    assert check_what_is_left(folder).startswith("checkpoint-")


def wait_for_steps(folder: RunFolder, count: int) -> None:
    deadline = time.monotonic() + 120
    while not folder.metrics.exists() or folder.metrics.read_text().count("\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_folder_that_became_read_only(
    cli: Cli,
    tiny_sdxl: Path,
    tmp_path: Path,
    disk: Path,
) -> None:
    """The disk of a run is mounted again, read-only: it stays as it is, and goes on later."""
    settings: dict[str, Any] = {"output__dir": str(disk / "run")}
    run(tiny_sdxl, tmp_path, train__steps=4, **settings)
    folder = RunFolder(disk / "run")
    before = contents(folder.path)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    values = recipe_values(tiny_sdxl, tmp_path, **settings)
    (tmp_path / "more.yaml").write_text(json.dumps(values))
    status, message = cli("train", "--config", tmp_path / "more.yaml", "--resume")
    assert status == 2
    assert "Read-only file system" in message and "choose a folder on a disk" in message
    assert contents(folder.path) == before
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert cli("train", "--config", tmp_path / "more.yaml", "--resume")[0] == 0
    whole = run(tiny_sdxl, tmp_path / "whole")
    assert whole.adapter and same_tensors(whole.adapter, folder.adapter)


def test_a_disk_that_was_full_until_the_run_is_resumed(
    cli: Cli,
    tiny_sdxl: Path,
    tmp_path: Path,
    disk: Path,
) -> None:
    """Others fill the disk to its last byte between two sittings; then they make room again."""
    settings: dict[str, Any] = {"output__dir": str(disk / "run")}
    run(tiny_sdxl, tmp_path, train__steps=4, **settings)
    folder = RunFolder(disk / "run")
    before = contents(folder.checkpoints)
    (disk / "others").write_bytes(bytes(shutil.disk_usage(disk).free))
    values = recipe_values(tiny_sdxl, tmp_path, **settings)
    (tmp_path / "more.yaml").write_text(json.dumps(values))
    status, message = cli("train", "--config", tmp_path / "more.yaml", "--resume")
    assert status == Status.NO_ROOM
    assert "not enough disk space" in message or "No space left" in message
    assert "free disk space" in message
    assert contents(folder.checkpoints) == before
    (disk / "others").unlink()
    assert cli("train", "--config", tmp_path / "more.yaml", "--resume")[0] == 0
    whole = run(tiny_sdxl, tmp_path / "whole")
    assert whole.adapter and same_tensors(whole.adapter, folder.adapter)
