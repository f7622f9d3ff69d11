"""Trackers: what they are told, that a resumed run goes on in them, and that none harms a training.

wandb and trackio are stood in for by small packages that write down how they are called; the last
tests ask the real ones, where they are installed.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_trackers import Fakes
from rich.console import Console
from training_runs import recipe_values, record, run, same_tensors

from tlora_cli import UserError
from tlora_cli.cli.app import main
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.reading import dump_recipe, load_recipe
from tlora_cli.training.loop import train
from tlora_cli.training.run_folder import RunFolder
from tlora_cli.training.trackers import background
from tlora_cli.training.trackers.background import Trackers
from tlora_cli.training.trackers.base import LoggedImage, TrackedRun, run_id, tracked_run


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fakes]:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions within one second
    yield Fakes(tmp_path / "fakes", monkeypatch)
    for name in [one for one in sys.modules if one.partition(".")[0] in ("wandb", "trackio")]:
        del sys.modules[name]


ALL = ["tensorboard", "wandb", "trackio"]
PREVIEW = {"every": 2, "prompts": ["a V* in the snow"]}


def by_step(calls: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Return the numbers of each step, without the previews."""
    found: dict[int, dict[str, float]] = {}
    for call in calls:
        if call["what"] == "log" and "train/loss" in call["values"]:
            assert call["step"] not in found, "told once"
            found[call["step"]] = call["values"]
    return found


def test_a_run_and_its_resumption_are_one_run(
    tiny_sdxl: Path, tmp_path: Path, fakes: Fakes
) -> None:
    for name in ("wandb", "trackio"):
        fakes.install(name)
    changes = {"output__trackers": ALL, "output__project": "dogs", "train__preview": PREVIEW}
    run(tiny_sdxl, tmp_path, train__steps=2, **changes)
    folder = tmp_path / "run"
    first = {name: fakes.calls(name) for name in ("wandb", "trackio")}
    fakes.install("wandb", step=3)  # as the server says it: the step that comes next
    run(tiny_sdxl, tmp_path, resume=True, train__steps=4, **changes)
    second = {name: fakes.calls(name) for name in ("wandb", "trackio")}

    identity = json.loads((folder / "trackers.json").read_text())["id"]
    for calls in (first, second):
        [wandb, trackio] = [calls[name][0] for name in ("wandb", "trackio")]
        assert (wandb["id"], wandb["name"], wandb["mode"]) == (identity, "run", "online")
        assert trackio["name"] == f"run-{identity}"
        for begun in (wandb, trackio):
            assert (begun["what"], begun["project"], begun["resume"]) == ("init", "dogs", "allow")
        assert [one[-1]["what"] for one in calls.values()] == ["finish", "finish"]
    final = load_recipe(folder / "recipe.yaml").model_dump(mode="json", by_alias=True)
    assert second["wandb"][0]["config"] == second["trackio"][0]["config"] == final

    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for name in ("wandb", "trackio"):
        numbers = by_step([*first[name], *second[name]])
        assert sorted(numbers) == [1, 2, 3, 4]
        for line in lines:
            told = dict(numbers[line["step"]])
            speed = told.pop("train/steps_per_second", None)
            assert (speed is None) == (line["step"] in (1, 3)), "none at first"
            keys = ("loss", "lr", "active_rank", "timestep", "memory_gb")
            assert told == {f"train/{key}": line[key] for key in keys}
        before, after = lines[2], lines[3]
        expected = 1 / (after["seconds"] - before["seconds"])
        assert numbers[4]["train/steps_per_second"] == pytest.approx(expected)

    title = "a sks dog in the snow, seed 0"
    for calls, steps in ((first, (0, 2)), (second, (4,))):
        files = [next((folder / "previews" / f"step-{step:06d}").iterdir()) for step in steps]
        shown = [c["values"] for c in calls["wandb"] if "previews" in c.get("values", {})]
        assert shown == [{"previews": [[str(file), title]]} for file in files]
        shown = [
            c["values"] for c in calls["trackio"] if f"previews/{title}" in c.get("values", ())
        ]
        assert shown == [{f"previews/{title}": [str(file), title]} for file in files]

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), {"images": 0, "scalars": 0})
    events.Reload()
    losses = events.Scalars("train/loss")
    assert [one.step for one in losses] == [1, 2, 3, 4]
    assert [one.value for one in losses] == pytest.approx([line["loss"] for line in lines])
    assert [one.step for one in events.Images(f"previews/{title}")] == [0, 2, 4]


def test_trackers_that_fail_change_nothing(
    tiny_sdxl: Path, tmp_path: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "PATIENCE", 0.2)
    fakes.install("wandb", on_init="raise RuntimeError('the server is gone\\nand more')")
    fakes.install("trackio", on_init="import threading; threading.Event().wait()")
    plain = run(tiny_sdxl, tmp_path / "plain", train__steps=2)
    (tmp_path / "told").mkdir()
    values = recipe_values(
        tiny_sdxl, tmp_path / "told", train__steps=2, output__trackers=["wandb", "trackio"]
    )
    console = Console(record=True, width=400, file=(tmp_path / "said").open("w"))
    told = train(Recipe.model_validate(values), console=console)
    assert plain.adapter and told.adapter and same_tensors(plain.adapter, told.adapter)
    said = console.export_text()
    once = "wandb failed (RuntimeError: the server is gone); the training goes on without it"
    assert said.count(once) == said.count("wandb") == 1
    assert said.count("trackio did not finish in time") == said.count("trackio") == 1


class Stuck:
    """A tracker that does nothing until it is let go."""

    def __init__(self) -> None:
        self.free, self.steps = threading.Event(), list[int]()

    def start(self, run: TrackedRun) -> str | None:
        self.free.wait()
        return "let go"

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.steps.append(step)

    def log_images(self, step: int, images: Sequence[LoggedImage]) -> None:
        pass

    def finish(self) -> None:
        self.steps.append(-1)


def test_a_stuck_tracker_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, said = Stuck(), list[str]()
    monkeypatch.setattr(background, "make_tracker", lambda name: stuck)
    monkeypatch.setattr(background, "PATIENCE", 0.1)
    trackers = Trackers(["wandb"], TrackedRun(RunFolder(tmp_path), "", "", {}, 0), said.append)
    began = time.thread_time()
    for step in range(1, 1001):
        trackers.log(record(step))
    assert time.thread_time() - began < 1.0
    trackers.end()
    assert said == ["wandb did not finish in time; it may lack the last steps"]
    stuck.free.set()
    trackers._threads[0]._thread.join(10)
    assert stuck.steps == [*range(1, 1001), -1], "in order, nothing lost"


def test_a_second_ctrl_c_waits_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, said = Stuck(), list[str]()
    monkeypatch.setattr(background, "make_tracker", lambda name: stuck)
    began = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        Trackers(["wandb"], TrackedRun(RunFolder(tmp_path), "", "", {}, 0), said.append),
    ):
        raise KeyboardInterrupt
    assert time.monotonic() - began < background.PATIENCE / 4
    stuck.free.set()


@pytest.mark.parametrize(
    ("state", "modes", "told"),
    [
        ({"logged_in": False}, ["offline"], "wandb is not logged in (`wandb login`)"),
        ({"mode": "offline"}, ["offline"], "wandb is set to offline"),
        ({"mode": "disabled"}, ["disabled"], ""),
        (
            {"on_init": "import wandb.errors as e\n    if options['mode'] == 'online':\n"
            "        raise e.Error('no answer')"},
            ["online", "offline"],
            "wandb can't be reached (no answer)",
        ),
    ],
    ids=["no login", "offline", "disabled", "server gone"],
)  # fmt: skip
def test_wandb_without_a_server_keeps_the_run(
    state: dict[str, Any], modes: list[str], told: str, tmp_path: Path, fakes: Fakes
) -> None:
    fakes.install("wandb", **state)
    said = list[str]()
    tracked = TrackedRun(RunFolder(tmp_path / "run"), "p", "0" * 12, {}, 0)
    trackers = Trackers(["wandb"], tracked, said.append)
    trackers.log(record(1))
    trackers.end()
    calls = fakes.calls("wandb")
    assert [call["mode"] for call in calls if call["what"] == "init"] == modes
    assert [call["step"] for call in calls if call["what"] == "log"] == [1]
    kept = tmp_path / "run" / "wandb"
    assert said == ([f"{told}: the run is kept in {kept}; to upload it: wandb sync "
                     f"{kept}/offline-run-*"] if told else [])  # fmt: skip


# --- recipes ----------------------------------------------------------------------------------


def test_a_missing_package_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    gone = ("wandb", "trackio")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in gone else find(name, *rest)
    )
    values = recipe_values(Path("no-such-model"), tmp_path, output__trackers=ALL)
    (tmp_path / "recipe.yaml").write_text(json.dumps(values))
    monkeypatch.setattr(sys, "argv", ["tlora", "train", "--config", str(tmp_path / "recipe.yaml")])
    assert main() == 3
    message = capsys.readouterr().err
    assert "wandb and trackio are not installed" in message
    assert "pip install wandb trackio" in message
    assert not (tmp_path / "run" / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("output", "trackers"),
    [
        ({}, ["tensorboard"]),
        ({"tensorboard": True}, ["tensorboard"]),
        ({"tensorboard": False}, []),
        ({"tensorboard": True, "trackers": ["wandb"]}, ["tensorboard", "wandb"]),
        ({"tensorboard": False, "trackers": ["wandb"]}, ["wandb"]),
        ({"tensorboard": False, "trackers": ["tensorboard"]}, "contradicts"),
        ({"trackers": ["wandb", "wandb"]}, "named twice"),
        ({"trackers": ["mlflow"]}, "must be one of tensorboard, wandb, trackio"),
    ],
)
def test_the_old_switch_is_understood(
    output: dict[str, Any], trackers: list[str] | str, tmp_path: Path
) -> None:
    values = recipe_values(Path("tiny-sdxl"), tmp_path)
    values["output"] = {"dir": "run", **output}
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(values))
    if isinstance(trackers, list):
        assert load_recipe(file).output.trackers == trackers
        return
    with pytest.raises(UserError, match=trackers):
        load_recipe(file)


def test_an_old_run_folder_can_be_resumed(tmp_path: Path) -> None:
    """Its recipe.yaml has the old switch and none of the new keys."""
    recipe = Recipe.model_validate(recipe_values(Path("tiny-sdxl"), tmp_path))
    old = dump_recipe(recipe).replace("  trackers: []\n  project: tlora\n", "  tensorboard: true\n")
    assert "tensorboard: true" in old and "trackers" not in old
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.recipe.write_text(old)
    folder.check(recipe, resume=True)
    assert load_recipe(folder.recipe).output.trackers == ["tensorboard"]


def test_the_id_of_a_run_stays(tmp_path: Path) -> None:
    file = tmp_path / "trackers.json"
    first = run_id(file)
    assert run_id(file) == first
    file.write_text('{"id": "../../etc"}')
    assert run_id(file) not in (first, "../../etc")
    run_folder = RunFolder(tmp_path / "other")
    assert tracked_run(["tensorboard"], run_folder, "p", {}, 0).id == ""
    assert not run_folder.trackers.exists(), "no file that nobody needs"
