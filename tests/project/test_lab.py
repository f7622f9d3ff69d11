"""The laboratory: grids and claims belong together, and verdicts are what the intervals say."""

from __future__ import annotations

import csv
import json
import shutil
from functools import cache
from pathlib import Path

import pytest
from lab import keys_of
from laboratory.claims import CLAIMS, CURVE, GRIDS
from laboratory.labels import place_names
from laboratory.matched import is_of, match
from laboratory.plots import plot, plot_matched
from laboratory.results import Pick, Results
from laboratory.tables import costs, matched, means
from laboratory.verdicts import LIKENESS, Claim, Contrast, decide, verdict
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from training_runs import run_python

from tlora_cli.comparison.bootstrap import Interval
from tlora_cli.comparison.grid_io import load_grid
from tlora_cli.comparison.planning import make_plan

ROOT = Path(__file__).resolve().parents[2]


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
    files = (ROOT / "configs" / "lab").glob("*.yaml")
    assert sorted(path.stem for path in files if path.stem != "recipe") == GRIDS


@cache
def rows_of(grid: str) -> list[dict[str, str]]:
    """Return the columns of each of a grid's arms by which they are picked."""
    plan = make_plan(load_grid(ROOT / "configs" / "lab" / f"{grid}.yaml"))
    return [
        {
            "method": arm.method,
            "rank": str(arm.rank or ""),
            "schedule": arm.schedule or "",
            "variant": arm.variant or "",
        }
        for arm in plan.arms
    ]


def arms_of(grid: str, pick: Pick) -> int:
    """Return how many of a grid's arms a pick fits."""
    return sum(pick.fits(row) for row in rows_of(grid))


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_what_a_claim_picks_is_one_arm_of_its_grid(
    claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    plan = make_plan(load_grid(ROOT / "configs" / "lab" / f"{claim.grid}.yaml"))
    pairs = {cell.pair for cell in plan.cells}
    assert len({concept for concept, _ in pairs}) >= 5
    assert len({seed for _, seed in pairs}) >= 3
    picks = [*claim.arms.values(), *claim.costs.values()]
    picks += [
        pick
        for one in [*claim.contrasts, *claim.noticed]
        if isinstance(one, Contrast)
        for pick in (one.arm, one.other)
    ]
    assert all(arms_of(claim.grid, pick) == 1 for pick in picks)
    if claim.curve:
        assert all(arms_of(claim.curve, pick) == 1 for pick in CURVE.values())


KEPT = sorted(path.stem for path in (ROOT / "docs" / "lab").glob("*.csv"))


@pytest.mark.parametrize("grid", KEPT)
def test_what_was_run_still_fits_its_grid(grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key of the recipe that means what was before makes no finished run another one."""
    monkeypatch.chdir(ROOT)
    rows = Results.read(ROOT / "docs" / "lab" / f"{grid}.csv").rows
    keys = keys_of(grid, rows)
    assert rows and all(keys.get(row["cell"]) == row["key"] for row in rows)


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


def write_curve(folder: Path, arm: tuple[float, float], spread: float = 0.0) -> Results:
    """Write a curve on which TS* is 1 - ID* up to an ID* of 0.8, and an arm; six pairs."""
    curve = {"s100": (0.0, 1.0), "s200": (0.4, 0.6), "s400": (0.8, 0.2), "s800": (0.6, 0.0)}
    moves = [spread * move for move in (-2, -1, 0, 0, 1, 2)]
    values = {("tlora", name): [y + move for move in moves] for name, (_, y) in curve.items()}
    results = write_cells(folder, {("lora", "a"): [arm[1] + move for move in moves], **values})
    for row in results.rows:
        row[LIKENESS] = str({"a": arm, **curve}[row["variant"]][0])
    return results


OVER_STEPS = list(CURVE.values())


def test_what_is_equally_alike_is_compared(tmp_path: Path) -> None:
    results = write_curve(tmp_path / "g", (0.5, 0.7), spread=0.01)
    found = match((results, Pick("lora")), [(results, one) for one in OVER_STEPS], LIKENESS, "TS*")
    assert found is not None and found.difference is not None
    assert (found.likeness, found.value) == (pytest.approx(0.5), pytest.approx(0.7))
    assert found.on_curve == pytest.approx(0.5)  # between 200 and 400 steps; not 800, past its end
    assert found.difference.mean == pytest.approx(0.2)
    assert found.difference.low == pytest.approx(0.2), "arm and curve are drawn together"
    assert found.difference.count == 6


def test_runs_of_the_curve_itself_are_known(tmp_path: Path) -> None:
    results = write_curve(tmp_path / "g", (0.5, 0.7))
    over = [(results, one) for one in OVER_STEPS]
    assert is_of((results, Pick("tlora", 16, variant="s200")), over, "TS*")
    assert not is_of((results, Pick("lora")), over, "TS*")


def test_names_of_a_crowd_cover_neither_each_other_nor_dots() -> None:
    spots = [(f"method {n}", 0.5 + 0.02 * (n % 4), 0.5 + 0.02 * (n // 4)) for n in range(12)]
    spots += [("at the right edge", 1.0, 0.5), ("at the foot", 0.5, 0.0)]
    figure = Figure(figsize=(5, 5))
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    place_names(axes, spots)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    names = {}
    for text in axes.texts:
        text.update_positions(canvas.get_renderer())
        names[text.get_text()] = Text.get_window_extent(text)  # without the line to its dot
    assert list(names) == [name for name, _, _ in spots]
    dots = [axes.transData.transform(spot) for _, *spot in spots]
    for name, box in names.items():
        assert not any(box.overlaps(other) for known, other in names.items() if known != name)
        assert not any(box.contains(*dot) for dot in dots), name
    assert names["at the right edge"].x1 <= axes.get_window_extent().x1


def test_what_is_never_so_alike_has_no_match(tmp_path: Path) -> None:
    results = write_curve(tmp_path / "g", (0.9, 0.7))
    found = match((results, Pick("lora")), [(results, one) for one in OVER_STEPS], LIKENESS, "TS*")
    assert found is not None and found.on_curve is None and found.difference is None
    assert match((results, Pick("oft")), [(results, OVER_STEPS[0])], LIKENESS, "TS*") is None


def test_costs_are_medians_and_what_is_missing_is_left_out(tmp_path: Path) -> None:
    results = write_cells(tmp_path / "g", {("lora", "a"): [0.5, 0.5, 0.5]})
    for row, seconds in zip(results.rows, ("10", "12", "90"), strict=True):
        row.update({"steps": "400", "training seconds": seconds, "peak memory GB": "0.6"})
        row.update({"parameters": "327680", LIKENESS: "0.9", "leak": "0.1"})
    lines = costs({"lora": Pick("lora"), "oft": Pick("oft")}, results)
    assert lines[2:] == [
        "| lora | 3 | 400 | 327,680 | 12 | 30 | 0.60 | 0.50 [0.50, 0.50] | 0.90 [0.90, 0.90] "
        "| 0.10 [0.10, 0.10] |"
    ]


def test_s_stands_first_where_the_runs_have_it_and_is_left_out_where_not(tmp_path: Path) -> None:
    results = write_curve(tmp_path / "g", (0.5, 0.7), spread=0.01)
    claim = Claim("c", "g", "title", "figure", "says", {"LoRA": Pick("lora")}, [])
    for row in results.rows:
        row["leak"] = "0.1"
    assert means(claim, results)[0] == "|  | TS* | ID* (base prompt) | leak |"
    assert matched(claim, results, results)[0].startswith("|  | ID* (base prompt) | TS* |")
    wide = Image.open(tmp_path / plot(claim, results, tmp_path)).width
    for row in results.rows:
        row["S*"] = "0.25" if row["method"] == "lora" else ""
    lines = means(claim, results)
    assert lines[0] == "|  | S* | TS* | ID* (base prompt) | leak |"
    assert lines[2].startswith("| LoRA | 0.25 [0.25, 0.25] | 0.70 [")
    other = {"T-LoRA": Pick("tlora", variant="s100")}
    lines = means(Claim("c", "g", "title", "figure", "says", other, []), results)
    assert lines[2].startswith("| T-LoRA |  | 1.00 ["), "missing is not zero"
    for row in results.rows:
        row["S*"] = row["S*"] or "0.05"
    lines = matched(claim, results, results)
    assert lines[0].startswith("|  | ID* (base prompt) | S* | S* of T-LoRA there |")
    assert lines[2].startswith("| LoRA | 0.50 | 0.25 | 0.05 | 0.20 [0.20, 0.20] | 0.70 | 0.50 |")
    assert Image.open(tmp_path / plot(claim, results, tmp_path)).width > wide
    assert Image.open(tmp_path / plot_matched(claim, results, results, tmp_path)).width > wide


def test_newer_runs_take_the_place_of_older_ones_and_other_settings_are_left_out() -> None:
    def rows(**values: tuple[str, str]) -> Results:
        return Results([{"cell": c, "key": k, "TS*": v} for c, (k, v) in values.items()])

    kept = rows(a=("1", "0.1"), b=("2", "0.2"), gone=("3", "0.3"), stale=("old", "0.4"))
    fresh = rows(stale2=("old", "0.5"), b=("2", "0.7"), new=("6", "0.6"))
    keys = {"new": "6", "a": "1", "b": "2", "stale": "4", "stale2": "5", "not run": "7"}
    merged = kept.with_fresh(fresh, keys).rows
    assert [(row["cell"], row["TS*"]) for row in merged] == [
        ("new", "0.6"),
        ("a", "0.1"),
        ("b", "0.7"),
    ]


def test_the_page_says_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    keys = keys_of("timesteps")
    claim = next(one for one in CLAIMS if one.grid == "timesteps")
    folder = tmp_path / "runs" / "timesteps"
    folder.mkdir(parents=True)
    names = ["cell", "method", "rank", "schedule", "variant", "concept", "seed"]
    metrics = ["TS*", "ID* (base prompt)", "leak"]
    cells = []
    with (folder / "cells.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*names, *metrics])
        for variant, scores in (("noisy", [0.2, 0.5, 0.9]), ("clean", [0.8, 0.6, 0.1])):
            for concept in ("pip", "momo", "finn", "kiwi", "toto"):
                for seed in range(3):
                    moved = [score + 0.01 * seed for score in scores]
                    cells.append(f"lora-r16-{variant}-{concept}-s{seed}")
                    done = folder / "cells" / cells[-1]
                    done.mkdir(parents=True)
                    (done / "result.json").write_text(json.dumps({"key": keys[cells[-1]]}))
                    table.writerow([cells[-1], "lora", "16", "", variant, concept, seed, *moved])
    spent = [
        "cell,steps,training seconds,peak memory GB",
        *(f"{one},400,15.2,0.6" for one in cells),
    ]
    (folder / "costs.csv").write_text("\n".join(spent) + "\n")
    assert verdict(decide(claim, Results.read(folder / "cells.csv"))) == "supports"
    page = tmp_path / "docs" / "lab.md"
    page.parent.mkdir()

    def write_page() -> None:
        words = ["lab.py", "--runs", str(tmp_path / "runs"), "--page", str(page)]
        done = run_python(
            f"import runpy, sys; sys.argv = {words}; sys.path.insert(0, 'scripts');"
            "runpy.run_path('scripts/lab.py', run_name='__main__')"
        )
        assert done.returncode == 0, done.stderr

    write_page()
    first = page.read_text()
    drawn = (page.parent / "images" / "lab" / "timesteps.png").stat()
    shutil.rmtree(tmp_path / "runs")  # as on another computer: the table beside the page is there
    write_page()
    text = page.read_text()
    assert text == first
    assert "not finished (30 of 60 runs)" in text
    assert "| leak | more | 0.80 [0.80, 0.80] | as expected |" in text
    assert text.count("Not run.") == len(CLAIMS) - 1
    again = (page.parent / "images" / "lab" / "timesteps.png").stat()
    assert again.st_size > 5000
    assert again.st_mtime_ns == drawn.st_mtime_ns, "what shows the same is not written again"
    assert not list(page.parent.rglob("*.svg"))
