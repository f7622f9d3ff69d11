"""The numbers of a report are those of the run's files; what is wrong with a file is told."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from html_pages import Tables
from run_reports import draw_preview, make_run, records, report
from training_runs import run

Cli = Callable[..., tuple[int, str, str]]


NOTHING = "\N{EN DASH}"


# --- numbers --------------------------------------------------------------------------------------


def test_losses_by_band_are_those_of_the_metrics(cli: Cli, tmp_path: Path) -> None:
    steps = records(300)
    _, tables = report(cli, make_run(tmp_path, steps))
    compared = 0
    for low in range(0, 1000, 200):
        own = [one for one in steps if low <= one["timestep"] < low + 200]
        early = [one["loss"] for one in own if one["step"] <= 60]  # a fifth of 300
        late = [one["loss"] for one in own if one["step"] > 240]
        count, first, last, change = tables.row(f"{low} to {low + 200}")
        assert count == str(len(own))
        for shown, values in ((first, early), (last, late)):
            assert shown == (f"{statistics.fmean(values):.4f}" if len(values) >= 5 else NOTHING)
            compared += len(values) >= 5
        if min(len(early), len(late)) >= 5:
            quotient = statistics.fmean(late) / statistics.fmean(early)
            assert change == f"{100 * (quotient - 1):+.0f}%"
    assert compared == 10
    whole = tables.row("all, by step")
    assert whole[0] == "300"
    assert whole[1] == f"{statistics.fmean(one['loss'] for one in steps[:60]):.4f}"
    assert whole[2] == f"{statistics.fmean(one['loss'] for one in steps[240:]):.4f}"


def test_smoothed_lines_end_at_the_mean_of_the_last_window(cli: Cli, tmp_path: Path) -> None:
    from tlora_cli.training.report.bands import bands, smoothed
    from tlora_cli.training.report.metrics import read_metrics

    steps = records(400)
    folder = make_run(tmp_path, steps)
    found = read_metrics(folder / "metrics.jsonl", True, []).steps
    for band in bands(found, 0, 1000):
        for step, mean in smoothed(band.samples, 80, 400):
            own = [
                one["loss"]
                for one in steps
                if band.low <= one["timestep"] < band.high and step - 80 < one["step"] <= step
            ]
            assert len(own) >= 5
            assert mean == pytest.approx(statistics.fmean(own))
        assert step == 400


def test_ranks_are_counted_as_they_were_drawn(cli: Cli, tmp_path: Path) -> None:
    steps = records(60)
    adapter = {"rank": 8, "min_rank": 2}
    _, tables = report(cli, make_run(tmp_path, steps, adapter=adapter))
    expected = dict.fromkeys(range(2, 9), 0)
    for one in steps:
        expected[math.floor(6 * (1000 - one["timestep"]) / 1000) + 2] += 1
    got = {int(row[0]): int(row[2]) for row in tables.rows if len(row) == 3 and row[0].isdigit()}
    assert got == expected
    assert tables.row("7")[0] == "1 to 166"
    assert tables.row("3")[0] == "667 to 833"


def test_facts_of_the_run(cli: Cli, tmp_path: Path) -> None:
    page, tables = report(cli, make_run(tmp_path, records(60)))
    assert "stopped 60 of 60 steps" in tables.text
    assert "4.00 steps/s" in page
    assert "2.10 GB" in page
    assert "0:15" in page


def test_a_step_of_several_pictures_counts_each(cli: Cli, tmp_path: Path, tiny_sdxl: Path) -> None:
    folder = tmp_path / "case"
    run(tiny_sdxl, folder, train__steps=3, train__batch_size=2, train__accumulation=2)
    lines = [json.loads(x) for x in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert len(line["samples"]) == 4
        assert line["loss"] == pytest.approx(statistics.fmean(x for _, x in line["samples"]))
        assert line["timestep"] == pytest.approx(statistics.fmean(t for t, _ in line["samples"]))
    assert len({loss for line in lines for _, loss in line["samples"]}) == 12
    _, tables = report(cli, folder / "run")
    counts = [row[1] for row in tables.rows if len(row) == 5 and " to " in row[0]]
    assert sum(map(int, counts)) == 12


def test_old_runs_of_several_pictures_are_in_no_band(cli: Cli, tmp_path: Path) -> None:
    page, tables = report(cli, make_run(tmp_path, records(60), train__batch_size=2))
    assert "60 steps of this run say only the mean" in page
    assert tables.row("0 to 200")[0] == "0"
    assert tables.row("all, by step")[0] == "60"


# --- what is wrong with a file --------------------------------------------------------------------

BAD = (
    '{"step": 7, "loss": 0.1, "timest',
    '{"step": 8, "loss": NaN, "timestep": 4.0}',
    '{"step": 9, "loss": "0.1", "timestep": 4.0}',
    '{"step": 9.5, "loss": 0.1, "timestep": 4.0}',
    '{"loss": 0.1, "timestep": 4.0}',
    '{"step": 9, "loss": 0.1, "timestep": 1e999}',
    "[1, 2]",
    "\x00\x00\x00",
)


def test_bad_lines_are_left_out_and_told(cli: Cli, tmp_path: Path) -> None:
    steps = records(60)
    clean, _ = report(cli, make_run(tmp_path / "clean", steps))
    folder = make_run(tmp_path / "bad", steps)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write("\n".join(BAD).encode() + b"\n\xff\xfe\n")
    page, tables = report(cli, folder)
    assert "9 lines of metrics.jsonl could not be read and are left out: 61, 62, 63" in page
    for row in ("0 to 200", "800 to 1000", "all, by step"):
        assert tables.row(row) == Tables(clean).row(row)


def test_no_step_counts_twice(cli: Cli, tmp_path: Path) -> None:
    """A run resumed at step 40, by a program that left the lines after it."""
    steps = records(60)
    page, _ = report(cli, make_run(tmp_path / "clean", steps))
    twice = [*records(50, seed=1)[:40], *records(50, seed=2)[40:], *steps]
    again, tables = report(cli, make_run(tmp_path / "twice", twice))
    assert "50 lines of metrics.jsonl told of a step once more" in again
    for row in ("0 to 200", "all, by step"):
        assert tables.row(row) == Tables(page).row(row)


def test_unreadable_previews_are_told(cli: Cli, tmp_path: Path) -> None:
    folder = make_run(tmp_path, records(10))
    file = draw_preview(folder, 10, "a V*", tmp_path / "photo.png")
    file.write_bytes(file.read_bytes()[:200])
    _, tables = report(cli, folder)
    assert f"The preview {file.name} of step 10 can't be read." in tables.text


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_what_is_no_run_is_refused(cli: Cli, tmp_path: Path, what: str) -> None:
    path = tmp_path / "nothing"
    if what == "empty":
        path.mkdir()
    elif what == "file":
        path.write_text("precious")
    status, _, err = cli("report", path)
    assert status == 2
    assert "the folder holds no run" in err
    assert str(path) in err
    assert "  fix:   " in err
    assert not (path / "report.html").exists()
