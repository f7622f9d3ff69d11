"""What many runs cost: arithmetic against formulas and counts of torch, disk, the command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from compare_runs import grid_values, write_grid
from validations import recipe, validate

from tlora_cli.tools.preflight import costs
from tlora_cli.tools.preflight.costs import (
    Job,
    bytes_of,
    look_at_costs,
    operations_of,
    operations_of_call,
    products_per_second,
)
from tlora_cli.tools.preflight.from_photo import CALL


def test_a_call_of_sdxl_is_what_was_counted_before() -> None:
    assert operations_of_call("sdxl", "any", 1024, 1024) == pytest.approx(CALL, rel=0.01)


def test_a_run_is_its_steps_and_its_pictures(tiny_sdxl: Path, tmp_path: Path) -> None:
    one = operations_of_call("sdxl", str(tiny_sdxl), 64, 64)
    train = {"steps": 10, "batch_size": 2, "accumulation": 3, "resolution": 64}
    made = recipe(tiny_sdxl, tmp_path, train=train, sampling={"steps": 4, "guidance": 5.0})
    steps = 3 * 10 * 2 * 3 * one
    assert operations_of(Job(made, 0)) == steps
    assert operations_of(Job(made, 7)) == steps + 7 * 4 * 2 * one  # guidance takes two calls
    plain = recipe(tiny_sdxl, tmp_path, train=train, sampling={"steps": 4, "guidance": 1.0})
    assert operations_of(Job(plain, 7)) == steps + 7 * 4 * one


def test_the_speed_is_that_of_products() -> None:
    assert 1e8 < products_per_second(torch.device("cpu"), "fp32") < 1e14


def test_time_and_disk_of_many_runs(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(tiny_sdxl, tmp_path, train={"steps": 10, "resolution": 64, "device": "cpu"})
    jobs = [Job(made, 5)] * 3
    monkeypatch.setattr(costs, "products_per_second", lambda *_: operations_of(jobs[0]) / 60)
    time, disk = look_at_costs(jobs, tmp_path, elsewhere=False)
    assert time.text.startswith("30 training steps, 15 pictures, ")
    assert "at least 3 min on cpu" in time.text
    assert disk.level == "ok"
    assert bytes_of(Job(made, 5)) - bytes_of(Job(made, 0)) == 5 * 64 * 64 * 2
    monkeypatch.setattr(costs, "free_space", lambda folder: 10)
    time, disk = look_at_costs(jobs, tmp_path, elsewhere=True)
    assert "at 100 TFLOP/s at least 0 s" in time.text
    assert disk.level == "problem" and "but 0 MB are free" in disk.text


def test_validate_of_a_grid(
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    published = {"source": "table 9", "notes": ["how many seeds; here two"]}
    values = grid_values(tiny_sdxl, tmp_path, published=published)
    file = write_grid(tmp_path / "g.yaml", values)
    assert validate(monkeypatch, file, "--set", "seed=7") == 0
    text = capsys.readouterr().out
    assert "is right by itself: 2 arms, 1 concept, 1 seed: 2 runs\n" in text
    assert "concepts         with their classes: toy (dog)\n" in text
    assert "warning  paper            how many seeds; here two\n" in text
    assert re.search(r"12 training steps, 8 pictures, .*: at least \d+ s on cpu", text)
    assert text.splitlines()[-1] == f"next: tlora compare {file} --set seed=7"
    assert not (tmp_path / "out").exists()
    assert validate(monkeypatch, file, "--deep") == 2
    assert "--deep tries one recipe, and this is a grid" in capsys.readouterr().err
    assert validate(monkeypatch, file, "--set", "concept={folder: none}") == 2
    assert "there is no folder none" in capsys.readouterr().err
