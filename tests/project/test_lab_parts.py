"""A part of the laboratory's runs, runs of other seeds and concepts, and runs that fit no grid."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import lab
import pytest
from laboratory.claims import CLAIMS
from laboratory.subsets import Part
from laboratory.verdicts import METRICS

from tlora_cli.comparison.grid_io import load_grid
from tlora_cli.comparison.planning import make_plan
from tlora_cli.comparison.tasks import task_of
from tlora_cli.foundation.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_other_seeds_are_kept_parts_are_drawn_and_unknown_rows_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`tlora compare --set seed=7 --set concept=otto` puts such rows into the grid's folder."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(lab, "GRIDS", ["timesteps"])
    claim = replace(next(one for one in CLAIMS if one.grid == "timesteps"), curve=None)
    monkeypatch.setattr(lab, "CLAIMS", [claim])
    options = ["variant=noisy,clean", "seed=0,7", "concept=pip,otto"]
    plan = make_plan(load_grid(ROOT / "configs" / "lab" / "timesteps.yaml", options))
    kept = tmp_path / "docs" / "lab"
    names = ["cell", "key", "method", "rank", "schedule", "variant", "concept", "seed", *METRICS]
    rows = [
        [cell.name, task_of(cell, plan).key, "lora", "16", "", cell.arm.variant, *cell.pair]
        + ([0.5, 0.9, 0.5, 0.25] if cell.arm.variant == "clean" else [0.5, 0.1, 0.5, 0.25])
        for cell in plan.cells
    ]
    old = ["lora-r16-noisy-pip-s1", "of-before", "lora", "16", "", "noisy", "pip", 1, *[0.7] * 4]
    odd = ["oft-noisy-pip-s0", "any", "oft", "", "", "noisy", "pip", 0, *[0.7] * 4]
    kept.mkdir(parents=True)
    with (kept / "timesteps.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows, old, odd])

    def page(*only: str) -> str:
        lab.write_page(tmp_path / "docs" / "p.md", tmp_path / "none", kept, Part.of(only))
        return (tmp_path / "docs" / "p.md").read_text()

    text = page()
    assert "not finished (2 of 60 runs)" in text, "the grid's own: pip with seed 0"
    more = "6 runs of other concepts or seeds than the grid's (otto with seed 0, otto with seed 7,"
    stale = "Left out: 1 run of other settings than the grid has now: lora-r16-noisy-pip-s1."
    strange = (
        "1 run of no method, rank, schedule, variant or concept of the grid: oft-noisy-pip-s0."
    )
    told = capsys.readouterr().err
    assert all(words in each for words in (more, stale, strange) for each in (text, told))

    assert not (tmp_path / "docs" / "images" / "lab").exists(), "those are of the whole page"
    assert (tmp_path / "docs" / "images" / "p" / "timesteps.png").stat().st_size > 5000
    text = page("seed=7")
    assert "**can't tell**" in text, "all four runs are there"
    assert "| [800, 1000) | 0.50 [0.50, 0.50] | 0.10 [0.10, 0.10] |" in text
    assert text.startswith("# A part of the laboratory\n\nOnly runs of seed 7.")
    assert "Not among these runs: all; [500, 800)." in text
    text = page("seed=7", "concept=otto", "variant=clean")
    assert "| [0, 500) | 0.50 | 0.90 | 0.50 | 0.25 |" in text
    assert "None of what decides can be told from these runs." in text
    for only, said in (
        ("seed=3", "no run has seed '3'"),
        ("sed=3", "no axis 'sed'"),
        ("seed=", "'seed=' names no value"),
    ):
        with pytest.raises(UserError, match=said):
            page(only)
