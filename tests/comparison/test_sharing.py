"""Cells that a comparison beside this one has finished."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from compare_runs import finish_cell, grid_values, plan_of, write_grid
from training_runs import tlora

from tlora_cli.comparison import sharing
from tlora_cli.comparison.cells import CELLS, MARK
from tlora_cli.comparison.sharing import take_over
from tlora_cli.comparison.tasks import Task, claim, read_result, task_of
from tlora_cli.foundation.errors import UserError


def tasks_of(tiny: Path, folder: Path, output: str, **changes: Any) -> list[Task]:
    values = {**grid_values(tiny, folder), "output": str(folder / output), **changes}
    plan = plan_of(folder / f"{output}.yaml", values)
    return [task_of(cell, plan) for cell in plan.cells]


def finish(task: Task, score: float = 0.5) -> None:
    """Leave a cell's folder, and the comparison's mark, as after the work."""
    claim(task)
    finish_cell(task, score)
    task.run.metrics.write_text('{"step": 6, "seconds": 1.5, "memory_gb": 0.5}\n')
    (task.run.path / ".lock").touch()
    (task.folder.parent.parent / MARK).write_text("grid: {}\n")


def test_what_was_finished_beside_it_is_taken_over_whole(tiny_sdxl: Path, tmp_path: Path) -> None:
    there = tasks_of(tiny_sdxl, tmp_path, "ranks")
    finish(there[0], 0.25)
    named = {"variants": {"plain": {}, "long": {"train.steps": 8}}}
    here = tasks_of(tiny_sdxl, tmp_path, "steps", **named)
    found = take_over(here, tmp_path / "steps")
    taken = [task for task in here if task.name in found]
    assert [(task.name, task.key) for task in taken] == [("lora-r2-plain-toy-s0", there[0].key)]
    result = read_result(taken[0])
    assert result == read_result(there[0]) == found[taken[0].name]
    assert result is not None and result.scores == {"clip IS": 0.25} and result.seconds == 1.5
    assert taken[0].run.adapter.read_bytes() == there[0].run.adapter.read_bytes()
    assert not (taken[0].run.path / ".lock").exists()
    assert there[0].folder.is_dir()
    assert take_over([task for task in here if task not in taken], tmp_path / "steps") == {}


def test_what_is_not_the_same_or_not_whole_is_not_taken(tiny_sdxl: Path, tmp_path: Path) -> None:
    there = tasks_of(tiny_sdxl, tmp_path, "ranks")
    for task in there:
        finish(task)
    there[0].run.adapter.write_bytes(b"another")
    there[1].scores.write_text('{"results": {"clip IS": 1.0}}')
    (there[2].folder / "result.json").write_text('{"key": ')
    here = tasks_of(tiny_sdxl, tmp_path, "again")
    claim(here[3])  # begun here: goes on here
    assert take_over(here, tmp_path / "again") == {}
    assert [task.folder.exists() for task in here] == [False, False, False, True]
    changed = {"evaluate": {**grid_values(tiny_sdxl, tmp_path)["evaluate"], "seed": 5}}
    other = tasks_of(tiny_sdxl, tmp_path, "other", **changed)
    assert take_over(other, tmp_path / "other") == {}


@pytest.mark.parametrize("gone", ["result.json", "result.json and a picture"])
def test_what_is_done_anew_there_while_it_is_copied_is_not_taken(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    there, *_ = tasks_of(tiny_sdxl, tmp_path, "ranks")
    finish(there)

    def begins_anew(source: str, target: str) -> None:
        (there.folder / "result.json").unlink(missing_ok=True)
        if "picture" in gone:
            there.run.metrics.unlink(missing_ok=True)
        sharing_copy(source, target)

    sharing_copy = sharing._copy
    monkeypatch.setattr(sharing, "_copy", begins_anew)
    here = tasks_of(tiny_sdxl, tmp_path, "again")
    assert take_over(here, tmp_path / "again") == {}
    assert not any((tmp_path / "again" / CELLS).iterdir())


def test_a_copy_that_fails_for_another_reason_is_told(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, *_ = tasks_of(tiny_sdxl, tmp_path, "ranks")
    finish(there)

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sharing, "_copy", full)
    here = tasks_of(tiny_sdxl, tmp_path, "again")
    with pytest.raises(UserError, match="No space left"):
        take_over(here, tmp_path / "again")


def test_folders_that_are_no_comparisons_are_not_searched(tiny_sdxl: Path, tmp_path: Path) -> None:
    there = tasks_of(tiny_sdxl, tmp_path, "ranks")
    finish(there[0])
    (tmp_path / "ranks" / MARK).unlink()
    assert take_over(tasks_of(tiny_sdxl, tmp_path, "again"), tmp_path / "again") == {}


@pytest.mark.full
def test_two_grids_that_overlap_through_the_command_line(tiny_sdxl: Path, tmp_path: Path) -> None:
    values = grid_values(tiny_sdxl, tmp_path)
    small = {**values["grid"], "method": ["lora"], "seed": [0]}
    first = {**values, "grid": small, "output": str(tmp_path / "small")}
    ran = tlora("compare", write_grid(tmp_path / "small.yaml", first))
    assert ran.returncode == 0, ran.stderr
    both = {**values, "grid": {**small, "seed": [0, 1]}, "output": str(tmp_path / "both")}
    ran = tlora("compare", write_grid(tmp_path / "both.yaml", both))
    assert ran.returncode == 0, ran.stderr
    told = "2 cells, 0 finished, 1 taken over from comparisons beside it, 1 to run"
    assert told in ran.stdout + ran.stderr
    rows = {
        name: list(csv.DictReader((tmp_path / name / "cells.csv").open()))
        for name in ("small", "both")
    }
    assert rows["both"][0] == rows["small"][0] and len(rows["both"]) == 2
