"""Choosing the step: the scores, what is kept, and that nothing of it touches the training."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from training_runs import (
    ROOT,
    recipe_values,
    run,
    same_adapter,
    same_tensors,
    tlora,
    write_recipe,
)

from tlora_cli import UserError
from tlora_cli.cli.app import main
from tlora_cli.comparison.tasks import Task
from tlora_cli.evaluation import encoder_kinds
from tlora_cli.evaluation.encoders import load_encoder
from tlora_cli.evaluation.suites import SUITES
from tlora_cli.families import FAMILIES
from tlora_cli.formats import read_origin
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.draw import Job, SamplingSettings
from tlora_cli.sampling.session import Request, SamplingSession
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.training import checkpoint_selection
from tlora_cli.training.checkpoint_scores import (
    Cosines,
    Record,
    best,
    overfitting,
    read_record,
    write_record,
)
from tlora_cli.training.run_folder import RunFolder
from tlora_cli.training.scoring_prompts import batch_of, trial_for, trial_settings
from tlora_cli.training.state import checkpoints

TOY = {"clip": "toy-clip", "dino": "toy-vit"}
SETTINGS: dict[str, Any] = {
    "train__select": "auto",
    "train__steps": 8,
    "train__checkpoint": {"every": 2, "keep": 1},
    "train__optimizer": {"name": "adamw", "lr": 0.1},  # large: the best step is not the last
    "sampling__steps": 2,
}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the built-in encoders stand in for those of the Hub."""
    for name, checkpoint in TOY.items():
        kind = replace(encoder_kinds.KINDS[name], checkpoint=checkpoint)
        monkeypatch.setitem(encoder_kinds.KINDS, name, kind)


def record_of(folder: Path) -> Record:
    record = read_record(folder / "run" / "scores.json")
    assert record is not None
    return record


def timeless(folder: Path) -> dict[str, Any]:
    """Return the file of the scores without what it cost."""
    content: dict[str, Any] = json.loads((folder / "run" / "scores.json").read_text())
    assert set(content.pop("seconds")) == set(content["steps"])
    return content


def kept(folder: Path) -> list[str]:
    return [path.name for path in checkpoints(folder / "run" / "checkpoints")]


# --- numbers --------------------------------------------------------------------------------------

BASE = Cosines({"clip": [0.2, 0.4], "dino": [0.1, 0.1]}, [0.30, 0.34, 0.32])
COPIER = Cosines({"clip": [0.8, 0.8], "dino": [1.0, 1.0]}, [0.20, 0.22, 0.18])


def made(*steps: tuple[int, Cosines]) -> Record:
    return Record({}, BASE, COPIER, dict(steps), {step: 1.0 for step, _ in steps})


def between(likeness: float, agreement: float, *noise: float) -> Cosines:
    """Return cosines that lie this far on the way from one end to the other."""
    alike = {
        name: [b + likeness * (c - b) for b, c in zip(low, COPIER.likeness[name], strict=True)]
        for name, low in BASE.likeness.items()
    }
    text = [
        c + agreement * (b - c) + more
        for b, c, more in zip(
            BASE.agreement, COPIER.agreement, noise or (0.0, 0.0, 0.0), strict=True
        )
    ]
    return Cosines(alike, text)


def test_the_scales_end_at_the_base_and_at_the_training_picture() -> None:
    base, copier, middle = made((1, BASE), (2, COPIER), (3, between(0.6, 0.3))).scores()
    assert (base.likeness, base.agreement) == pytest.approx((0, 1))
    assert (copier.likeness, copier.agreement) == pytest.approx((1, 0))
    assert base.balance == pytest.approx(0, abs=1e-9) == copier.balance
    assert (middle.likeness, middle.agreement) == pytest.approx((0.6, 0.3))
    assert middle.balance == pytest.approx(statistics.harmonic_mean([0.6, 0.3]))


def test_the_best_balance_is_chosen_and_of_equals_the_earliest() -> None:
    steps = [(10, between(0.1, 0.9)), (20, between(0.5, 0.5)), (30, between(0.5, 0.5))]
    assert best(made(*steps, (40, between(0.9, 0.1))).scores()).step == 20
    worse = made((1, between(1.4, -0.2)), (2, between(0.3, 0.2))).scores()
    assert best(worse).step == 2  # better than the base's likeness makes no balance of nothing


def test_overfitting_is_a_sure_loss_after_the_best_step() -> None:
    early, top = (10, between(0.1, 0.99)), (20, between(0.7, 0.7))
    unsure = (30, between(0.7, 0.6, 0.03, -0.03, 0.0))
    sure = (40, between(0.75, 0.4, 0.002, -0.002, 0.0))
    record = made(early, top, unsure, sure)
    span = statistics.fmean(BASE.agreement) - statistics.fmean(COPIER.agreement)
    for (step, own), wanted in ((unsure, False), (sure, True)):
        lost = [a - b for a, b in zip(top[1].agreement, own.agreement, strict=True)]
        error = statistics.stdev(lost) / math.sqrt(3)
        assert record.loss(step, 20) == pytest.approx((statistics.fmean(lost) / span, error / span))
        assert (statistics.fmean(lost) > 2 * error) is wanted
    assert overfitting(record) == 40
    assert overfitting(made(early, top, unsure)) is None
    assert overfitting(made(top, early)) is None  # before the best step
    assert overfitting(Record({})) is None


def test_a_suite_that_tells_nothing_is_not_blown_up() -> None:
    """The base follows these prompts no better than the training picture does."""
    flat = Cosines(BASE.likeness, COPIER.agreement)
    own = Cosines(BASE.likeness, [value - 0.001 for value in COPIER.agreement])
    [found] = Record({}, flat, COPIER, {1: own}).scores()
    assert found.agreement == pytest.approx(1 - 0.001 / 0.02)


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    assert read_record(file) is None
    record = made((100, between(0.1, 0.123456789)), (20, COPIER))
    record.suite = {"class": "dog"}
    write_record(file, record)
    assert read_record(file) == record
    for damage in ("{", "[]", '{"version": 9}', file.read_text().replace('"agreement"', '"x"')):
        file.write_text(damage)
        with pytest.raises(UserError, match="can't be read"):
            read_record(file)


# --- the pictures ---------------------------------------------------------------------------------


def drawn_as(width: int, height: int, steps: int) -> SamplingSettings:
    return SamplingSettings(steps, 5.0, "default", "blurry", width, height)


@pytest.mark.parametrize(
    ("family", "sampling", "expected", "together"),
    [
        ("sdxl", (1024, 1024, 25), (512, 512, 8), 4),
        ("flux", (1024, 1024, 28), (512, 512, 9), 4),
        ("flux", (1024, 1024, 4), (512, 512, 4), 4),  # as schnell draws
        ("sdxl", (1024, 1024, 60), (512, 512, 12), 4),
        ("sdxl", (832, 1216, 25), (424, 616, 8), 3),  # the shape stays
        ("flux", (832, 1216, 28), (416, 624, 9), 3),  # in units of 16
        ("sdxl", (512, 512, 17), (512, 512, 6), 1),
        ("sdxl", (64, 64, 20), (64, 64, 6), 1),
    ],
)
def test_pictures_are_small_and_drawn_in_few_steps(
    family: str, sampling: tuple[int, int, int], expected: tuple[int, int, int], together: int
) -> None:
    given = drawn_as(*sampling)
    small = trial_settings(given, FAMILIES[family])
    assert small == drawn_as(*expected)
    assert batch_of(small, given, None) == together
    assert batch_of(small, given, BUNDLE) == BUNDLE.batch_size


def test_prompts_lie_evenly_in_the_suite() -> None:
    for class_name, kind in (("cat", "live"), ("teapot", "object")):
        prompts = SUITES[kind].contextual
        assert trial_for(class_name, None).prompts == tuple(prompts[n] for n in (0, 5, 10, 15, 20))
    world = trial_for("cat", BUNDLE)
    assert world.prompts == tuple(BUNDLE.scoring_prompts[n] for n in (0, 1, 3, 4, 6))
    assert world.pictures[:2] == [("a photo of a V*", 0), ("a photo of a V*", 1)]


# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "ema", "seed"),
    [
        ("tiny_sdxl", {"decay": 0.3}, 0),
        ("tiny_flux", None, 1),
        pytest.param("tiny_sdxl", None, 0, marks=pytest.mark.full),
    ],
)
def test_the_best_checkpoint_becomes_the_result_and_training_is_untouched(
    base: str, ema: Any, seed: int, tmp_path: Path, request: pytest.FixtureRequest, offline: None
) -> None:
    tiny = request.getfixturevalue(base)
    settings = {**SETTINGS, "train__ema": ema, "train__seed": seed}
    plain = run(tiny, tmp_path / "plain", **{**settings, "train__select": "last"})
    outcome = run(tiny, tmp_path / "auto", **settings)
    assert plain.adapter and outcome.adapter
    record = record_of(tmp_path / "auto")
    assert list(record.steps) == [2, 4, 6, 8]
    step = best(record.scores()).step
    assert step != 8, "the test needs a run whose best step is not its last"
    names = {f"checkpoint-{one:06d}" for one in (step, 8)}
    assert set(kept(tmp_path / "auto")) == names
    folder = tmp_path / "auto" / "run" / "checkpoints"
    chosen, last = (folder / f"checkpoint-{n:06d}" / "adapter.safetensors" for n in (step, 8))
    assert same_adapter(outcome.adapter, chosen)
    assert read_origin(outcome.adapter) == read_origin(chosen)
    assert read_origin(outcome.adapter)[1].train_steps == step
    assert same_adapter(plain.adapter, last)
    assert not same_adapter(plain.adapter, chosen)


def test_scores_are_those_of_the_checkpoints_pictures(
    tiny_sdxl: Path, tmp_path: Path, offline: None
) -> None:
    """Drawn again from the checkpoint's file, by the code that `tlora sample` uses."""
    mask = np.zeros((96, 96), np.uint8)
    mask[:, :48] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    settings = {**SETTINGS, "concept__masks": str(tmp_path / "mask.png"), "train__steps": 2}
    run(tiny_sdxl, tmp_path, **settings)
    record = record_of(tmp_path)
    contexts = [SUITES["live"].contextual[number] for number in (0, 5, 10, 15, 20)]
    prompts = ["a photo of a V*"] * 2 + contexts
    seeds = [0, 1, *range(5)]
    assert record.suite["pictures"] == [list(one) for one in zip(prompts, seeds, strict=True)]
    see = {name: load_encoder(name, None, torch.device("cpu")) for name in TOY}
    session = SamplingSession(
        Request(tmp_path / "run" / "adapter.safetensors", (), tmp_path), print
    )
    words = [[p.replace("V*", v) for p in prompts] for v in ("sks dog", "dog")]
    session.prepare([*words[0], *words[1]])
    with Image.open(tmp_path / "photo.png") as photo:
        small = photo.resize((64, 64), Image.Resampling.LANCZOS)
    gray = small.copy()
    gray.paste((127, 127, 127), (32, 0, 64, 64))
    texts = see["clip"].texts(words[1][2:])
    assert record.base is not None and record.copier is not None
    for own, spelled, scale in ((record.steps[2], words[0], 1.0), (record.base, words[1], 0.0)):
        jobs = [Job(*one) for one in zip(spelled, seeds, strict=True)]
        pictures = [picture for _, picture in session.draw(jobs, scale, 1)]
        for name, encoder in see.items():
            expected = encoder.pictures(pictures[:2]) @ encoder.pictures([gray])[0]
            assert own.likeness[name] == pytest.approx(expected.tolist(), abs=0.01)
        expected = (see["clip"].pictures(pictures[2:]) * texts).sum(1)
        assert own.agreement == pytest.approx(expected.tolist(), abs=1e-4)
    expected = texts @ see["clip"].pictures([small])[0]
    assert record.copier.agreement == pytest.approx(expected.tolist(), abs=0.01)


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = [{root!r}]
from tlora_cli.evaluation import encoder_kinds
for name, checkpoint in {toy!r}.items():
    encoder_kinds.KINDS[name] = replace(encoder_kinds.KINDS[name], checkpoint=checkpoint)
from tlora_cli.recipe.reading import load_recipe
from tlora_cli.training import checkpoint_selection, loop
drawn = 0
original = checkpoint_selection.draw
def killed(*arguments, **options):
    global drawn
    drawn += 1
    if drawn == {when}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)
checkpoint_selection.draw = killed
loop.train(load_recipe(Path({recipe!r})))
"""


@pytest.mark.full
def test_killed_and_interrupted_while_scoring_it_ends_the_same(
    tiny_sdxl: Path, tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tiny_sdxl, tmp_path / "whole", **SETTINGS)
    recipe = write_recipe(tiny_sdxl, tmp_path / "hurt", **SETTINGS)

    # Killed when step 4 is saved, but not scored: after the base and step 2 were drawn.
    code = KILLED.format(root=str(ROOT), toy=TOY, recipe=str(recipe), when=3)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(record_of(tmp_path / "hurt").steps) == [2]
    assert "checkpoint-000004" in kept(tmp_path / "hurt")

    # Asked to stop in the midst of the last step's pictures, when the training is over.
    real: Callable[..., Any] = checkpoint_selection.draw
    calls = 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        for one in real(*arguments):
            if calls == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield one

    monkeypatch.setattr(checkpoint_selection, "draw", interrupted)
    stopped = run(tiny_sdxl, tmp_path / "hurt", resume=True, **SETTINGS)
    assert (stopped.adapter, stopped.step) == (None, 8)
    assert list(record_of(tmp_path / "hurt").steps) == [2, 4, 6]
    assert not (tmp_path / "hurt" / "run" / "adapter.safetensors").exists()
    monkeypatch.setattr(checkpoint_selection, "draw", real)
    resumed = run(tiny_sdxl, tmp_path / "hurt", resume=True, **SETTINGS)
    assert whole.adapter and resumed.adapter
    assert same_tensors(whole.adapter, resumed.adapter)
    origins = [read_origin(one)[1] for one in (whole.adapter, resumed.adapter)]
    assert origins[0].train_steps == origins[1].train_steps
    assert timeless(tmp_path / "hurt") == timeless(tmp_path / "whole")
    assert kept(tmp_path / "hurt") == kept(tmp_path / "whole")

    before = resumed.adapter.stat().st_mtime_ns
    run(tiny_sdxl, tmp_path / "hurt", resume=True, **SETTINGS)  # is complete
    assert resumed.adapter.stat().st_mtime_ns == before


def test_a_finished_run_can_change_its_mind(
    tiny_sdxl: Path, tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny_sdxl, tmp_path, **SETTINGS)
    folder = RunFolder(tmp_path / "run")
    values = {choice: recipe_values(tiny_sdxl, tmp_path, **{**SETTINGS, "train__select": choice})
              for choice in ("last", "auto")}  # fmt: skip
    last, auto = (Recipe.model_validate(values[choice]) for choice in ("last", "auto"))
    assert folder.finished(auto) and not folder.finished(last)
    shorter = {**SETTINGS, "train__steps": 5}  # no checkpoint of that step was scored
    assert folder.finished(Recipe.model_validate(recipe_values(tiny_sdxl, tmp_path, **shorter)))
    outcome = run(tiny_sdxl, tmp_path, resume=True, **{**SETTINGS, "train__select": "last"})
    assert outcome.adapter
    newest = folder.checkpoints / "checkpoint-000008" / "adapter.safetensors"
    assert same_adapter(outcome.adapter, newest)
    assert folder.finished(last) and not folder.finished(auto)

    with pytest.raises(UserError, match="scored with other settings"):
        run(tiny_sdxl, tmp_path, resume=True, **{**SETTINGS, "sampling__steps": 3})
    text = folder.scores.read_text()
    older = json.loads(text)
    older["suite"]["pictures"].append(["a blue V*", 5])
    folder.scores.write_text(json.dumps(older))
    with pytest.raises(UserError, match="by another version of tlora") as caught:
        run(tiny_sdxl, tmp_path, resume=True, **SETTINGS)
    assert caught.value.do and "set train.select: last, or move the file away" in caught.value.do
    folder.scores.write_text(text[:200])
    with pytest.raises(UserError, match="scores of the checkpoints can't be read"):
        run(tiny_sdxl, tmp_path, resume=True, **SETTINGS)
    folder.scores.write_text(text)
    chosen = folder.checkpoints / f"checkpoint-{best(record_of(tmp_path).scores()).step:06d}"
    chosen.rename(tmp_path / "gone")
    with pytest.raises(UserError, match="best checkpoint can't be loaded"):
        run(tiny_sdxl, tmp_path, resume=True, **SETTINGS)


def test_cells_of_a_comparison_from_before_still_fit(tiny_sdxl: Path, tmp_path: Path) -> None:
    """Only with `auto` does a result depend on which checkpoints there were."""
    given = Recipe.model_validate(recipe_values(tiny_sdxl, tmp_path)).model_dump(mode="json")
    before = {**given, "train": {k: v for k, v in given["train"].items() if k != "select"}}
    auto = {**given, "train": {**given["train"], "select": "auto"}}
    stamps = [Task("a", tmp_path, one, {}, 1).stamp for one in (before, given, auto)]
    assert stamps[0] == stamps[1] != stamps[2]
    assert "checkpoint" not in stamps[1]["recipe"]["train"]
    assert stamps[2]["recipe"]["train"]["checkpoint"] == given["train"]["checkpoint"]


def test_encoders_that_cannot_be_had_are_told_before_the_training(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="the clip checkpoint can't be loaded"):
        run(tiny_sdxl, tmp_path, **SETTINGS)
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    assert run(tiny_sdxl, tmp_path, **{**SETTINGS, "train__select": "last"}).adapter


# --- what is told ---------------------------------------------------------------------------------

HEADING = "<h2>Which step is best?</h2>"


def test_the_command_line_tells_scores_and_the_page_shows_them(tmp_path: Path) -> None:
    recipe = tmp_path / "momo.yaml"
    recipe.write_text(
        "family: sdxl\nbase: toy-sdxl\nconcept: {images: toy:momo/1, class: cat}\n"
        "train: {steps: 4, select: auto, checkpoint: {every: 2}}\n"
        f"sampling: {{steps: 2}}\noutput: {{dir: {tmp_path / 'run'}, trackers: []}}\n"
    )
    done = tlora("train", "--config", recipe)
    assert done.returncode == 0, done.stderr
    record = record_of(tmp_path)
    for one in record.scores():
        assert f"step {one.step}: likeness {one.likeness:.2f}, agreement with" in done.stderr
    step = best(record.scores()).step
    assert f"step {step} of 4 has the best balance and is kept" in done.stderr
    page = (tmp_path / "run" / "report.html").read_text()
    balance = f"Step {step} has the best balance of likeness and agreement"
    assert f"{HEADING}\n<p>{balance} and is the result." in page
    assert "from the same noise" in page


def test_the_page_shows_the_curves_and_where_overfitting_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from html_pages import Tables
    from run_reports import make_run, records

    folder = make_run(tmp_path, records(60))
    steps = [
        *((10, between(0.1, 0.95)), (20, between(0.3, 0.9)), (40, between(0.8, 0.8))),
        (60, between(0.9, 0.5, 0.001, 0, 0)),
    ]
    monkeypatch.setattr("sys.argv", ["tlora", "report", str(folder)])
    write_record(folder / "scores.json", made(*steps[1:]))
    assert main() == 0
    page = (folder / "report.html").read_text()
    assert HEADING in page and 'class="mark"' not in page, "three points make no curve"

    record = made(*steps)
    write_record(folder / "scores.json", record)
    assert main() == 0
    page = (folder / "report.html").read_text()
    balance = "Step 40 has the best balance of likeness and agreement"
    assert f"{balance} so far. Overfitting begins by step 60." in page
    tables = Tables(page)
    for one in record.scores():
        row = tables.row(f"step {one.step}")
        numbers = (one.likeness, one.agreement, one.balance)
        assert row[:3] == [f"{value:.3f}" for value in numbers]
    loss, error = record.loss(60, 40)
    assert tables.row("step 60")[3] == f"{loss:+.3f} ± {error:.3f}"
    assert page.count('class="mark"') == 2
    assert "Scoring took 4 seconds, 21% of the time." in page  # and 15 in steps

    (folder / "scores.json").write_text("{")
    assert main() == 0
    page = (folder / "report.html").read_text()
    assert "scores of the checkpoints can't be read" in Tables(page).text


def test_a_run_without_scores_has_no_such_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from run_reports import make_run, records

    folder = make_run(tmp_path, records(20))
    monkeypatch.setattr("sys.argv", ["tlora", "report", str(folder)])
    assert main() == 0
    assert HEADING not in (folder / "report.html").read_text()
