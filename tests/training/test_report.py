"""The report of a run: its numbers, what it is made of, and that it never harms a training."""

from __future__ import annotations

import fcntl
import json
import math
import re
import shutil
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from html_pages import Tables
from PIL import Image
from rich.console import Console
from run_reports import draw_preview, make_run, records
from training_runs import draw_picture, recipe_values, run

from tlora_cli.cli.app import main
from tlora_cli.recipe.models import Recipe
from tlora_cli.training.loop import train
from tlora_cli.training.report import live
from tlora_cli.training.report.live import RunReports
from tlora_cli.training.run_folder import RunFolder

Cli = Callable[..., tuple[int, str, str]]
NOTHING = "\N{EN DASH}"
ATTACK = '<script>alert("1")</script><img src=x onerror=alert(2)>'


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Return a function that runs `tlora` and gives status, output and messages."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["tlora", *map(str, arguments)])
        return main(), *capfd.readouterr()

    return call


def report(cli: Cli, folder: Path) -> tuple[str, Tables]:
    status, out, err = cli("report", folder)
    assert status == 0, err
    assert out.strip() == str(folder / "report.html")
    page = (folder / "report.html").read_text()
    return page, Tables(page)


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
    values = recipe_values(Path("tiny-sdxl"), tmp_path)
    found = read_metrics(folder / "metrics.jsonl", Recipe.model_validate(values), []).steps
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


# --- the page -------------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_escapes_everything(cli: Cli, tmp_path: Path) -> None:
    concept = {"images": str(tmp_path / "photo.png"), "class": f"cat{ATTACK}", "prompt": ATTACK}
    folder = make_run(tmp_path, records(20), concept=concept)
    (folder / "about.json").write_text(json.dumps({"device": ATTACK, "versions": {ATTACK: ATTACK}}))
    draw_preview(folder, 10, ATTACK, tmp_path / "photo.png")
    page, tables = report(cli, folder)
    assert "script" not in tables.tags
    assert not {"link", "iframe", "object", "embed", "base"} & tables.tags
    assert ATTACK not in page
    assert page.count("&lt;script&gt;") >= 6
    assert len(tables.addresses) == 2  # the training picture and the preview
    assert all(one.startswith("data:image/") for one in tables.addresses)
    assert "@import" not in page and "url(" not in page
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_copying_is_a_correlation_with_the_training_picture(cli: Cli, tmp_path: Path) -> None:
    folder = make_run(tmp_path, records(20))
    photo, other = tmp_path / "photo.png", draw_picture(tmp_path / "other.png", seed=3)
    draw_preview(folder, 10, "a V*", other)
    draw_preview(folder, 20, "a V*", photo)
    draw_preview(folder, 20, "V* at night", other, seed=4)
    _, tables = report(cli, folder)
    [unlike] = tables.row("step 10")
    assert abs(float(unlike)) < 0.6
    assert float(tables.row("step 20")[0]) == pytest.approx((1 + float(unlike)) / 2, abs=0.002)
    strip = [row for row in tables.rows if row and row[0].startswith(("a V*", "V* at"))]
    assert [row[0] for row in strip] == ["a V*seed 0", "V* at nightseed 4"]
    assert strip[1][1] == NOTHING  # nothing was drawn of it at step 10


@pytest.mark.parametrize("method", ["lora", "oft", "textual_inversion"])
def test_methods_without_a_schedule(cli: Cli, tmp_path: Path, method: str) -> None:
    adapter = {"method": method, **({"rank": 4} if method == "lora" else {})}
    page, _ = report(cli, make_run(tmp_path, records(20), adapter=adapter))
    expected = "all 4 ranks are active" if method == "lora" else "it has no ranks at all"
    assert f"{method} has no rank schedule: {expected}" in page


def test_a_run_without_steps(cli: Cli, tmp_path: Path) -> None:
    folder = make_run(tmp_path, [])
    page, _ = report(cli, folder)
    assert "0 of 60 steps" in page
    (folder / "metrics.jsonl").unlink()
    assert "0 of 60 steps" in report(cli, folder)[0]


# --- while training -------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["tiny_sdxl", "tiny_flux"])
def test_training_leaves_the_page_that_the_command_makes(
    cli: Cli, tmp_path: Path, base: str, request: pytest.FixtureRequest
) -> None:
    mask = tmp_path / "mask.png"
    Image.new("L", (96, 96), 255).save(mask)
    changes: dict[str, Any] = {
        "concept__masks": str(mask),
        "train__steps": 4,
        "train__preview": {"every": 2, "prompts": ["a V* at night"]},
    }
    run(request.getfixturevalue(base), tmp_path, **changes)
    folder = tmp_path / "run"
    written = (folder / "report.html").read_text()
    (tmp_path / "photo.png").unlink()  # the run keeps what the page needs
    mask.unlink()
    page, tables = report(cli, folder)
    assert page == written
    assert "finished 4 of 4 steps" in tables.text
    assert f"tlora sample --adapter {folder / 'adapter.safetensors'} --prompt" in page
    assert f"tlora train --resume --output {folder} --set train.steps=8" in page
    assert (folder / "recipe.yaml").read_text() in tables.text
    assert "torch 2." in tables.text
    strip = [row for row in tables.rows if row and row[0].startswith("a sks dog at night")]
    assert len(strip) == 1
    assert len(tables.addresses) == 4  # picture, mask, two previews


def test_stopped_resumed_and_running(cli: Cli, tmp_path: Path, tiny_sdxl: Path) -> None:
    from tlora_cli.training import loop

    whole = tmp_path / "whole"
    run(tiny_sdxl, whole)
    values = recipe_values(tiny_sdxl, tmp_path)
    original = loop._Run._step

    def stops(self: Any) -> None:
        original(self)
        if self.state.step == 3:
            self.interruption.asked = True

    loop._Run._step = stops  # type: ignore[method-assign]
    try:
        train(Recipe.model_validate(values))
    finally:
        loop._Run._step = original  # type: ignore[method-assign]
    folder = tmp_path / "run"
    page = (folder / "report.html").read_text()
    assert "stopped 3 of 6 steps" in Tables(page).text
    assert f"tlora train --resume --output {folder}</pre>" in page
    assert "checkpoints/checkpoint-000003/adapter.safetensors" in page
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "running 3 of 6 steps" in report(cli, folder)[1].text
    assert "stopped 3 of 6 steps" in report(cli, folder)[1].text

    run(tiny_sdxl, tmp_path, resume=True)
    _, tables = report(cli, folder)
    assert "finished 6 of 6 steps" in tables.text
    undisturbed = report(cli, whole / "run")[1]
    for row in ("0 to 200", "200 to 400", "400 to 600", "600 to 800", "800 to 1000"):
        assert tables.row(row) == undisturbed.row(row)
    assert tables.row("all, by step")[0] == "6"


def test_a_report_that_cannot_be_written_is_told_once_and_stops_nothing(
    tmp_path: Path, tiny_sdxl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SHARE", 1e9)  # at each checkpoint
    in_the_way = tmp_path / "run" / "report.html"
    in_the_way.mkdir(parents=True)
    console = Console(record=True, width=400, quiet=False, file=(tmp_path / "out").open("w"))
    outcome = train(Recipe.model_validate(recipe_values(tiny_sdxl, tmp_path)), console=console)
    assert outcome.adapter is not None and outcome.step == 6
    said = console.export_text()
    assert said.count("the report can't be written") == 1
    assert f"tlora report {tmp_path / 'run'}" in said
    assert in_the_way.is_dir()


def test_a_refused_training_leaves_the_report_of_the_run_before(
    cli: Cli, tmp_path: Path, tiny_sdxl: Path
) -> None:
    from tlora_cli import UserError

    folder = make_run(tmp_path, records(20))
    report(cli, folder)
    before = (folder / "report.html").stat().st_mtime_ns
    with pytest.raises(UserError, match="already holds a run"):
        run(tiny_sdxl, tmp_path)
    assert (folder / "report.html").stat().st_mtime_ns == before


def test_reports_take_a_small_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, written = 0.0, []

    def write(folder: Path) -> None:
        nonlocal now
        now += 0.5
        written.append(now)

    monkeypatch.setattr(live, "write_report", write)
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    reports = RunReports(RunFolder(tmp_path), print)
    reports.end()
    assert written == []  # the folder may hold another run
    reports.begin()
    for _ in range(1000):
        reports.update()
        now += 1.0
    assert len(written) == pytest.approx(1000 / 50, abs=1)
    reports.end()
    assert len(written) == pytest.approx(1000 / 50 + 1, abs=1)


# --- in a browser ---------------------------------------------------------------------------------

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
def test_a_narrow_screen_need_not_scroll_sideways(cli: Cli, tmp_path: Path) -> None:
    folder = make_run(tmp_path, records(60))
    for step in range(10, 60, 10):
        draw_preview(folder, step, "a photo of a sks dog " + "x" * 60, tmp_path / "photo.png")
    report(cli, folder)
    # A page of its own measures the report in a frame of that width.
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<iframe id=f width=390 height=900 src="file://{folder}/report.html"></iframe><p id=out>'
        "<script>document.getElementById('f').onload = () => { const r = "
        "document.getElementById('f').contentDocument.documentElement; "
        "document.getElementById('out').textContent = 'wide ' + r.scrollWidth + ' of ' + "
        "r.clientWidth; };</script>"
    )
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
         "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom", f"file://{probe}",
         f"--user-data-dir={tmp_path / 'profile'}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r"wide (\d+) of (\d+)", done.stdout)
    assert found, done.stderr
    assert int(found[1]) <= int(found[2])
    assert "CONSOLE" not in done.stderr
