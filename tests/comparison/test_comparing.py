"""Comparisons that really run: killed and gone on with, failing in part, from the command line."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from compare_runs import TABLES, grid_values, sitting, tables, write_grid
from html_pages import Page
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from training_runs import tlora


def progress_made(folder: Path) -> int:
    """Return how much has been done: finished steps, pictures and cells."""
    steps = sum(
        len(file.read_bytes().splitlines()) for file in folder.glob("cells/*/run/metrics.jsonl")
    )
    pictures = len(list(folder.glob("cells/*/evaluation/pictures/*/*.png")))
    return steps + pictures + len(list(folder.glob("cells/*/result.json")))


def finished(folder: Path) -> dict[Path, int]:
    """Return when each finished cell's files were written."""
    return {
        file: file.stat().st_mtime_ns
        for result in folder.glob("cells/*/result.json")
        for file in (
            result,
            result.parent / "run" / "adapter.safetensors",
            result.parent / "evaluation" / "results.json",
        )
    }


def children_of(process: int) -> list[int]:
    """Return the processes that one has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue  # it has just ended
        if int(parent) == process:
            found.append(int(stat.parent.name))
    return found


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.full
def test_killed_again_and_again_it_ends_with_the_same_tables(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    """Undisturbed with two workers; with one, killed three times and stopped once by Ctrl-C."""
    log = tmp_path / "log.txt"
    undisturbed = grid_values(tiny_sdxl, tmp_path, output=str(tmp_path / "undisturbed"))
    process = sitting(write_grid(tmp_path / "a.yaml", undisturbed), "--workers", 2, log=log)
    process.join()
    assert process.exitcode == 0, log.read_text()
    whole = tables(tmp_path / "undisturbed")
    total = progress_made(tmp_path / "undisturbed")
    assert total == 4 * (6 + 4 + 1)

    killed = tmp_path / "apart" / "killed"  # cells finished beside it would be taken over
    grid = write_grid(tmp_path / "b.yaml", grid_values(tiny_sdxl, tmp_path, output=str(killed)))
    moments = sorted(random.sample(range(2, total - 2), 4))
    ends = [signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGKILL]
    random.shuffle(ends)
    kept: dict[Path, int] = {}
    cut_short: set[Path] = set()
    for moment, end in zip(moments, ends, strict=True):
        process = sitting(grid, log=log)
        while progress_made(killed) < moment and process.is_alive():
            time.sleep(0.01)
        while not children_of(process.pid) and process.is_alive():  # the work has yet to begin
            time.sleep(0.01)
        time.sleep(random.random() * 0.1)
        at_work = children_of(process.pid)
        assert process.is_alive(), (moments, ends, log.read_text())
        os.kill(process.pid, end)
        process.join(120)
        assert process.exitcode == (130 if end == signal.SIGINT else -end), (moments, ends)
        until = time.monotonic() + 30
        while not all(gone(child) for child in at_work):
            assert time.monotonic() < until, "cells outlive the comparison"
            time.sleep(0.05)
        now = finished(killed)
        assert all(now[file] == when for file, when in kept.items()), "finished work was repeated"
        kept = now
        cut_short |= {
            run.parent
            for run in killed.glob("cells/*/run")
            if [*run.glob("checkpoints/checkpoint-*")]
            and not (run / "adapter.safetensors").exists()
        }
        assert not (killed / "summary.csv").exists()
    process = sitting(grid, log=log)
    process.join()
    assert process.exitcode == 0, (moments, ends, log.read_text())
    assert all(finished(killed)[file] == when for file, when in kept.items())
    assert tables(killed) == whole, (moments, ends)
    assert all("resuming after step" in (cell / "log.txt").read_text() for cell in cut_short)
    assert "Traceback" not in log.read_text()
    assert "go on with:\n  tlora compare " in log.read_text()


def test_whatever_happened_to_a_folder_no_wrong_number_comes_out(
    tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = grid_values(tiny_sdxl, tmp_path)
    values["grid"] = {**values["grid"], "method": ["lora"], "seed": [0]}
    del values["baseline"]
    grid, log, out = tmp_path / "g.yaml", tmp_path / "log.txt", tmp_path / "out"

    def compare(**changes: Any) -> tuple[int, str]:
        log.write_text("")
        process = sitting(write_grid(grid, {**values, **changes}), log=log)
        process.join()
        return process.exitcode, log.read_text()

    status, text = compare()
    assert status == 0, text
    assert "1 cells, 0 finished, 1 to run" in text
    before = tables(out)
    cell = out / "cells" / "lora-r2-toy-s0"
    scores = cell / "evaluation" / "results.json"
    drawn = {file: file.stat().st_mtime_ns for file in cell.glob("evaluation/pictures/*/*.png")}
    assert len(drawn) == 4

    # Half-written, tampered with, or of another cell: scored again from the pictures.
    for damaged in (
        scores.read_text()[:100],
        scores.read_text().replace('"clip IS": ', '"clip IS": 1'),
    ):
        scores.write_text(damaged)
        status, text = compare()
        assert (status, tables(out)) == (0, before), text
        assert "0 finished, 1 to run" in text
    (cell / "result.json").write_text('{"key": "of another cell"}')
    assert compare()[0] == 0
    assert tables(out) == before
    assert {f: f.stat().st_mtime_ns for f in drawn} == drawn, "pictures were drawn again"

    # Another metric: scored on the same pictures.
    evaluate = {**values["evaluate"], "metrics": ["clip=toy-clip", "dino=toy-vit"]}
    assert compare(evaluate=evaluate)[0] == 0
    assert "dino IS" in tables(out)["cells.csv"]
    assert {f: f.stat().st_mtime_ns for f in drawn} == drawn

    # Other settings are refused, and nothing is touched.
    kept = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    recipe = json.loads(json.dumps(values["recipe"]))
    recipe["train"]["steps"] = 4
    status, text = compare(recipe=recipe)
    assert status == 2
    assert (
        "1 cell was made with other settings\n  lora-r2-toy-s0: recipe.train.steps: was 6" in text
    )
    status, text = compare(evaluate={**values["evaluate"], "base_count": 3})
    assert (status, "evaluate.base_count: was 2, is 3" in text) == (2, True)
    assert {f: f.read_bytes() for f in out.rglob("*") if f.is_file()} == kept

    # A damaged adapter is written again from the checkpoint, and its scores stay.
    adapter = cell / "run" / "adapter.safetensors"
    whole = adapter.read_bytes()
    adapter.write_bytes(whole + b" ")
    status, text = compare()
    assert (status, tables(out)) == (0, before), text
    assert adapter.read_bytes() == whole
    assert {f: f.stat().st_mtime_ns for f in drawn} == drawn

    # An adapter that is another one now doesn't have these scores.
    with safe_open(adapter, "pt") as opened:
        metadata = opened.metadata()
    save_file({name: one + 1 for name, one in load_file(adapter).items()}, adapter, metadata)
    status, text = compare()
    assert status == 2, text
    assert "lora-r2-toy-s0: failed" in text
    assert "clip IS" not in tables(out)["cells.csv"]


def test_a_cell_that_fails_does_not_stop_the_others(tiny_sdxl: Path, tmp_path: Path) -> None:
    values = grid_values(tiny_sdxl, tmp_path)
    values["grid"] = {**values["grid"], "method": ["lora"], "seed": [0]}
    values["variants"] = {"wild": {"train.optimizer.lr": 1e30}, "calm": {}}
    values["baseline"] = {"method": "lora", "variant": "wild"}
    grid, log, out = write_grid(tmp_path / "g.yaml", values), tmp_path / "log.txt", tmp_path / "out"
    process = sitting(grid, log=log)
    process.join()
    text = log.read_text()
    assert process.exitcode == 2  # a mistake of the recipe: docs/service.md
    assert "1 cell failed:\n  lora-r2-wild-toy-s0: " in text
    assert "training has diverged" in text
    assert "this runs the failed ones again:\n  tlora compare " in text
    rows = list(csv.DictReader((out / "cells.csv").open()))
    assert [row["cell"] for row in rows] == ["lora-r2-calm-toy-s0"]
    assert json.loads(tables(out)["summary.json"])["missing"] == ["lora-r2-wild-toy-s0"]
    assert "training has diverged" in Page((out / "index.html").read_text()).words
    assert "diverged" in (out / "cells" / "lora-r2-wild-toy-s0" / "log.txt").read_text()
    kept = finished(out)
    log.write_text("")
    process = sitting(grid, log=log)
    process.join()
    assert process.exitcode == 2
    assert "2 cells, 1 finished, 1 to run" in log.read_text()
    assert finished(out) == kept


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.full
def test_the_built_in_world_through_the_command_line(tmp_path: Path) -> None:
    """As a user starts it, with the server of processes: training, judge, tables, page."""
    values = {
        "recipe": {
            "family": "sdxl",
            "base": "toy-sdxl",
            "train": {"steps": 2, "device": "cpu"},
            "sampling": {"steps": 2},
            "output": {"trackers": []},
        },
        "output": str(tmp_path / "out"),
        "grid": {"method": ["lora"], "rank": [4], "concept": ["pip"]},
        "evaluate": {"base_count": 2, "batch_size": 16},
    }
    grid = write_grid(tmp_path / "toy.yaml", values)
    named = tlora("compare", grid, "--dry-run")
    assert (named.returncode, named.stdout) == (0, "lora-r4-pip-s0\n")
    assert not (tmp_path / "out").exists()
    done = tlora("compare", grid)
    assert done.returncode == 0, done.stderr
    assert "[1/1] lora-r4-pip-s0: done in " in done.stderr
    assert "Loading" not in done.stderr and "torchvision" not in done.stderr
    assert done.stdout.splitlines()[0].split()[:3] == ["cells", "S*", "TS*"]
    assert done.stdout.splitlines()[1].startswith("lora r4      1  ")
    out = tmp_path / "out"
    [row] = list(csv.DictReader((out / "cells.csv").open()))
    assert {"S*", "TS*", "ID*", "leak", "copy", "clip IS", "clip TS (class)", "dino IS"} <= set(row)
    assert 0 <= float(row["S*"]) <= float(row["TS*"]) <= 1
    [cost] = list(csv.DictReader((out / "costs.csv").open()))
    assert (cost["steps"], cost["device"]) == ("2", "cpu")
    assert int(cost["parameters"]) == int(row["parameters"]) > 1000
    assert float(cost["training seconds"]) > 0 and float(cost["peak memory GB"]) > 0.1
    found = Page((out / "index.html").read_text())
    assert not found.open
    assert len(found.pictures) == 1 + 8
    assert "ID* against TS*" in (out / "index.html").read_text()
    assert {path.name for path in out.iterdir()} == {
        *(*TABLES, "costs.csv", "index.html"),
        *("grid.yaml", "cells", ".lock"),
    }
    assert (out / "grid.yaml").read_text() == grid.read_text()
    again = tlora("compare", grid)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "1 cells, 1 finished, 0 to run" in again.stderr
