"""The laboratory: grids and claims belong together, and verdicts are what the intervals say."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from laboratory.claims import CLAIMS, Claim, Contrast, decide, verdict  # noqa: E402
from laboratory.results import Pick, Results  # noqa: E402

from tlora_cli.comparison.bootstrap import Interval  # noqa: E402
from tlora_cli.comparison.grid_io import load_grid  # noqa: E402
from tlora_cli.comparison.planning import make_plan  # noqa: E402

GRIDS = sorted(p.stem for p in (ROOT / "configs" / "lab").glob("*.yaml") if p.stem != "recipe")


def write_cells(folder: Path, values: dict[tuple[str, str], list[float]]) -> Results:
    """Write the TS* of (method, variant) for seeds 0, 1, ... of one concept."""
    folder.mkdir(parents=True)
    with (folder / "cells.csv").open("w", newline="") as file:
        table = csv.writer(file)
        names = ["method", "rank", "schedule", "variant", "concept", "seed", "TS*"]
        table.writerow(names)
        for (method, variant), scores in values.items():
            for seed, score in enumerate(scores):
                table.writerow([method, "16", "", variant, "pip", seed, score])
    return Results.read(folder / "cells.csv")


def test_every_grid_has_its_claim() -> None:
    assert sorted({claim.grid for claim in CLAIMS}) == GRIDS


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_what_a_claim_picks_is_one_arm_of_its_grid(
    claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    plan = make_plan(load_grid(ROOT / "configs" / "lab" / f"{claim.grid}.yaml"))
    pairs = {cell.pair for cell in plan.cells}
    assert len({concept for concept, _ in pairs}) >= 5
    assert len({seed for _, seed in pairs}) >= 3
    rows = [
        {
            "method": arm.method,
            "rank": str(arm.rank or ""),
            "schedule": arm.schedule or "",
            "variant": arm.variant or "",
        }
        for arm in plan.arms
    ]
    picks = [*claim.arms.values()]
    picks += [
        pick
        for one in claim.contrasts
        if isinstance(one, Contrast)
        for pick in (one.arm, one.other)
    ]
    for pick in picks:
        assert sum(pick.fits(row) for row in rows) == 1, pick


def test_verdicts() -> None:
    more, less = (Contrast("", "TS*", Pick(), Pick(), sign) for sign in (1, -1))
    up, down, none = Interval(1, 0.5, 2, 15), Interval(-1, -2, -0.5, 15), Interval(0, -1, 1, 15)
    few = Interval(1, 0.5, 2, 3)
    assert verdict([(more, up), (less, down)]) == "supports"
    assert verdict([(more, up), (more, none)]) == "can't tell"
    assert verdict([(more, down), (more, none)]) == "doesn't"
    assert verdict([(more, down), (more, up)]) == "in part"
    assert verdict([(more, few)]) == "can't tell"
    assert verdict([]) == "can't tell"


def test_differences_are_paired_and_a_vague_pick_is_refused(tmp_path: Path) -> None:
    results = write_cells(
        tmp_path / "g", {("lora", "a"): [0.1, 0.5, 0.9], ("tlora", "a"): [0.2, 0.6, 1.0]}
    )
    found = results.difference(Pick("tlora"), Pick("lora"), "TS*")
    assert found is not None
    assert found.low == pytest.approx(0.1) and found.high == pytest.approx(0.1)
    with pytest.raises(ValueError, match="several arms"):
        results.values(Pick(variant="a"), "TS*")


def test_rank_correlation(tmp_path: Path) -> None:
    arms = [Pick("m", variant=name) for name in "abc"]
    scores = {("m", "a"): [1.0, 3.0], ("m", "b"): [2.0, 2.0], ("m", "c"): [3.0, 1.0]}
    results = write_cells(tmp_path / "g", scores)
    for row in results.rows:
        row["size"] = {"a": "5", "b": "7", "c": "70"}[row["variant"]]
    found = results.rank_correlation(arms, "size", "TS*")
    assert found is not None
    assert (found.mean, found.count) == (pytest.approx(0), 2)  # 1 and -1
    assert results.rank_correlation(arms, "TS*", "TS*").mean == pytest.approx(1)  # type: ignore[union-attr]


def test_the_page_says_what_is_there(tmp_path: Path) -> None:
    claim = next(one for one in CLAIMS if one.grid == "timesteps")
    folder = tmp_path / "runs" / "timesteps"
    folder.mkdir(parents=True)
    names = ["method", "rank", "schedule", "variant", "concept", "seed"]
    metrics = ["TS*", "ID* (base prompt)", "leak"]
    with (folder / "cells.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*names, *metrics])
        for variant, scores in (("noisy", [0.2, 0.5, 0.9]), ("clean", [0.8, 0.6, 0.1])):
            for concept in ("pip", "momo", "finn", "kiwi", "toto"):
                for seed in range(3):
                    moved = [score + 0.01 * seed for score in scores]
                    table.writerow(["lora", "16", "", variant, concept, seed, *moved])
    assert verdict(decide(claim, Results.read(folder / "cells.csv"))) == "supports"
    page = tmp_path / "docs" / "lab.md"
    page.parent.mkdir()

    def write_page() -> None:
        options = ("--runs", tmp_path / "runs", "--page", page)
        subprocess.run([sys.executable, "scripts/lab.py", *options], check=True, cwd=ROOT)

    write_page()
    first = page.read_text()
    shutil.rmtree(tmp_path / "runs")  # as on another computer: the table beside the page is there
    write_page()
    text = page.read_text()
    assert text == first
    assert "not finished (30 of 60 runs)" in text
    assert "| leak | more | 0.80 [0.80, 0.80] | as expected |" in text
    assert text.count("Not run.") == len(CLAIMS) - 1
    assert (page.parent / "images" / "lab" / "timesteps.png").stat().st_size > 5000
    assert (page.parent / "images" / "lab" / "timesteps.svg").read_text().startswith("<?xml")
