"""The report of a run: its numbers, what it is made of, and that it never harms a training."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Sequence
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
    shown = " ".join(tables.text.split())
    assert "step 10 step 20 a V*, seed 0" in shown
    assert "step 10: not drawn step 20 V* at night, seed 4" in shown


@pytest.mark.parametrize("method", ["lora", "oft", "textual_inversion"])
def test_methods_without_a_schedule(cli: Cli, tmp_path: Path, method: str) -> None:
    adapter = {"method": method, **({"rank": 4} if method == "lora" else {})}
    page, _ = report(cli, make_run(tmp_path, records(20), adapter=adapter))
    expected = "all 4 ranks are active" if method == "lora" else "it has no ranks at all"
    assert f"{method} has no rank schedule: {expected}" in page


def scored(folder: Path, likeness: Sequence[float], agreement: Sequence[float]) -> None:
    """Write scores of steps 10, 20, ... on a scale from the base (.2, .3) to the copier (1, .1)."""

    def cosines(alike: float, agreeing: float) -> dict[str, Any]:
        moved = (-0.01, 0.0, 0.01, 0.02, -0.02)
        return {
            "likeness": {"dino": [alike + one for one in moved]},
            "agreement": [agreeing + one / 2 for one in reversed(moved)],
        }

    steps = {
        str(10 * number): cosines(0.2 + 0.8 * alike, 0.1 + 0.2 * agreeing)
        for number, (alike, agreeing) in enumerate(zip(likeness, agreement, strict=True), 1)
    }
    record = {
        "version": 1,
        "suite": {},
        "base": cosines(0.2, 0.3),
        "copier": cosines(1.0, 0.1),
        "steps": steps,
        "seconds": dict.fromkeys(steps, 1.0),
    }
    (folder / "scores.json").write_text(json.dumps(record))


def test_the_verdict_is_what_was_measured(cli: Cli, tmp_path: Path) -> None:
    folder = make_run(tmp_path, records(40))
    page, tables = report(cli, folder)
    assert "Whether it learned was not measured." in page
    scored(folder, [0.3, 0.75, 0.8, 0.9], [1.0, 0.9, 0.7, 0.4])
    page, tables = report(cli, folder)
    assert "Learned. Step 20 is the best so far: 75% of the way" in page
    assert "90% as obedient to prompts as the base" in page
    assert "Overfitting begins by step 30" in page
    assert "best so far</text>" in page
    assert tables.row("step 20")[:2] == ["0.750", "0.900"]
    scored(folder, [0.0, 0.0], [1.0, 1.0])
    page, _ = report(cli, folder)
    assert "Not learned yet: the pictures of the best step" in page
    assert "no more like the training picture" in page
    assert "best so far</text>" not in page, "a plot of two points says nothing"


def test_the_slider_begins_at_the_best_step(cli: Cli, tmp_path: Path) -> None:
    folder = make_run(tmp_path, records(40))
    for step in (0, 10, 20, 30, 40):
        draw_preview(folder, step, "a V*", tmp_path / "photo.png")
    assert '<input type="radio" name="step" checked><span>40</span>' in report(cli, folder)[0]
    scored(folder, [0.3, 0.75, 0.8, 0.9], [1.0, 0.9, 0.7, 0.4])
    page, _ = report(cli, folder)
    assert '<input type="radio" name="step" checked><span>20</span>' in page
    assert page.count(" checked>") == 1
    assert "Step 0 is the base" in page


def test_of_many_steps_the_slider_shows_some(cli: Cli, tmp_path: Path) -> None:
    folder = make_run(tmp_path, records(40))
    for step in range(41):
        draw_preview(folder, step, "a V*", tmp_path / "photo.png")
    page, tables = report(cli, folder)
    assert "Of 41 steps with previews 14 are shown." in page
    assert len(tables.addresses) == 15


def test_the_browser_is_opened_if_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tlora_cli.cli.app import main

    folder, opened = make_run(tmp_path, records(4)), []

    def starts(address: str) -> bool:
        opened.append(address)
        return len(opened) == 1

    monkeypatch.setattr("webbrowser.open", starts)
    for arguments in ([], ["--open"], ["--open"]):
        monkeypatch.setattr("sys.argv", ["tlora", "report", str(folder), *arguments])
        assert main() == 0
    assert opened == [f"file://{folder}/report.html"] * 2
    assert capsys.readouterr().err.count("no browser could be started") == 1


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
    assert "step 0 step 2 step 4 a sks dog at night, seed 0" in " ".join(tables.text.split())
    assert len(tables.addresses) == 5  # picture, mask, three previews


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
    assert "report: " not in said
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
    assert len(written) == 1, "the page is there from the start"
    written.clear()
    for _ in range(1000):
        reports.update()
        now += 1.0
    assert len(written) == pytest.approx(1000 / 50, abs=1)
    reports.end()
    assert len(written) == pytest.approx(1000 / 50 + 1, abs=1)
