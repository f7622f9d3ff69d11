"""Results and folders of cells: what counts, and what is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from compare_runs import finish_cell, grid_values, plan_of, write_grid

from tlora_cli.cli.app import main
from tlora_cli.comparison import tasks
from tlora_cli.comparison.tasks import read_result, task_of
from tlora_cli.foundation.errors import Status


def test_a_result_counts_only_with_its_own_files(tiny_sdxl: Path, tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "g.yaml", grid_values(tiny_sdxl, tmp_path))
    one, other = (task_of(cell, plan) for cell in plan.cells[:2])
    assert one.key != other.key
    assert read_result(one) is None
    for each in (one, other):
        finish_cell(each, 0.5)
        found = read_result(each)
        assert found is not None and found.scores == {"clip IS": 0.5}
    result = (one.folder / "result.json").read_text()
    (one.folder / "result.json").write_text((other.folder / "result.json").read_text())
    assert read_result(one) is None, "another cell's result"
    (one.folder / "result.json").write_text(result[: len(result) // 2])
    assert read_result(one) is None, "half a result"
    (one.folder / "result.json").write_text(result)
    assert read_result(one) is not None
    one.run.adapter.write_bytes(b"another")
    assert read_result(one) is None, "another adapter"
    one.run.adapter.unlink()  # someone made room: the scores still stand
    assert read_result(one) is not None
    one.scores.write_text(json.dumps({"results": {"clip IS": 0.6}}))
    assert read_result(one) is None, "other scores"


def test_a_result_depends_on_what_it_should(tiny_sdxl: Path, tmp_path: Path) -> None:
    def key(**changes: Any) -> str:
        plan = plan_of(tmp_path / "g.yaml", {**grid_values(tiny_sdxl, tmp_path), **changes})
        return task_of(plan.cells[0], plan).key

    own = grid_values(tiny_sdxl, tmp_path)
    recipe, evaluate = own["recipe"], own["evaluate"]
    first = key()
    same = [
        key(workers=3),
        key(baseline=None),
        key(output=str(tmp_path / "elsewhere")),
        key(recipe={**recipe, "train": {**recipe["train"], "checkpoint": {"every": 3}}}),
    ]
    assert set(same) == {first}
    others = [
        key(threads=2),
        key(recipe={**recipe, "sampling": {"steps": 3}}),
        key(evaluate={**evaluate, "mask": "auto"}),
        key(evaluate={**evaluate, "seed": 1}),
    ]
    assert len({first, *others}) == 5


def test_folders_of_others_are_left_alone(
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    grid = write_grid(tmp_path / "g.yaml", grid_values(tiny_sdxl, tmp_path))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    monkeypatch.setattr("sys.argv", ["tlora", "compare", str(grid)])
    assert main() == 2
    assert "out is not empty and is left as it is" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    (tmp_path / "out" / "thesis.txt").unlink()
    monkeypatch.setattr(tasks, "PATIENCE", 0.1)
    with tasks.locked_patiently(tmp_path / "out"):
        assert main() == Status.LATER
    assert "another tlora run is working in this folder" in capfd.readouterr().err
