"""The report of a run: its numbers, what it is made of, and that it never harms a training."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from html_pages import Tables
from PIL import Image
from rich.console import Console
from run_reports import draw_preview, make_run, records, report
from training_runs import draw_picture, recipe_values, run

from tlora_cli.recipe.models import Recipe
from tlora_cli.training.loop import train
from tlora_cli.training.report import live
from tlora_cli.training.report.live import RunReports
from tlora_cli.training.run_folder import RunFolder

Cli = Callable[..., tuple[int, str, str]]
NOTHING = "\N{EN DASH}"
ATTACK = '<script>alert("1")</script><img src=x onerror=alert(2)>'


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
    original = loop.TrainingLoop._step

    def stops(self: Any) -> None:
        original(self)
        if self.state.step == 3:
            self.interruption.asked = True

    loop.TrainingLoop._step = stops  # type: ignore[method-assign]
    try:
        train(Recipe.model_validate(values))
    finally:
        loop.TrainingLoop._step = original  # type: ignore[method-assign]
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
