"""`tlora sheet`: axes and values, cells that `tlora sample` draws too, and what is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_runs import run

from tlora_cli.cli.app import main
from tlora_cli.formats import AdapterInfo
from tlora_cli.foundation.errors import UserError
from tlora_cli.sampling import base_model
from tlora_cli.sampling import session as sessions
from tlora_cli.sampling.generate import generate
from tlora_cli.sampling.session import Request
from tlora_cli.tools.sheet.axes import parse_axes, parse_values
from tlora_cli.tools.sheet.cells import plan_cells
from tlora_cli.tools.sheet.layout import GAP, LEAST, Block, lay_out, side_on_sheet
from tlora_cli.tools.sheet.sources import Source, find_source

PROMPT = "a photo of a V* in the snow"
Sheet = Callable[..., Image.Image]


@pytest.fixture(scope="module")
def dog(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with checkpoints of steps 2, 4 and 6, which a strong step has moved."""
    folder = tmp_path_factory.mktemp("sheet") / "dog"
    many = {"every": 2, "keep": 9}
    run(tiny_sdxl, folder, train__checkpoint=many, train__optimizer__lr=0.3, sampling__steps=2)
    return folder / "run"


@pytest.fixture
def sheet(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Sheet:
    """Return a function that runs the command and opens what it wrote."""

    def draw(*words: object) -> Image.Image:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["tlora", "sheet", *map(str, words), "--prompt", PROMPT])
        capfd.readouterr()
        ended = main()
        out, err = capfd.readouterr()
        assert ended == 0, err
        return Image.open(tmp_path / out.strip())

    return draw


def cells(picture: Image.Image, rows: int, columns: int, side: int = 64) -> list[list[Any]]:
    """Return the pictures on a sheet at their own size; they end at the right edge of the sheet."""
    large, step = side_on_sheet(side, side)[0], side_on_sheet(side, side)[0] + GAP
    pixels = np.asarray(picture)
    right = picture.width - 20
    lefts = [right - large - n * step for n in reversed(range(columns))]
    # The first row of a picture: below it no row of the sheet is white from left to right.
    strip = (pixels[:, lefts[0] : lefts[0] + large] != 255).any(axis=(1, 2))
    tall = next(
        y for y in range(len(strip) - large) if strip[y : y + large].mean() > 0.99 and strip[y]
    )
    factor = large // side
    return [
        [
            pixels[tall + row * step : tall + row * step + large, x : x + large][::factor, ::factor]
            for x in lefts
        ]
        for row in range(rows)
    ]


def sampled(folder: Path, adapter: Path, **how: Any) -> Any:
    [file] = generate(Request(adapter, [PROMPT], folder, **how), lambda line: None)
    return np.asarray(Image.open(file))


# --- what is drawn --------------------------------------------------------------------------------


def test_each_cell_is_what_sample_draws_and_the_base_is_loaded_once(
    dog: Path, sheet: Sheet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    real = sessions.load_denoiser

    def counted(*given: Any, **named: Any) -> Any:
        loaded.append(given)
        return real(*given, **named)

    monkeypatch.setattr(sessions, "load_denoiser", counted)
    made = sheet(dog, "--values", "scale=0.5,1.5", "--values", "step=0,2,6", "--seed", 3)
    assert len(loaded) == 1
    grid = cells(made, 3, 2)
    for row, step in enumerate((2, 6), start=1):
        adapter = dog / "checkpoints" / f"checkpoint-{step:06d}" / "adapter.safetensors"
        for column, scale in enumerate((0.5, 1.5)):
            own = sampled(tmp_path / "own", adapter, scale=scale, seed=3)
            assert np.array_equal(grid[row][column], own), (step, scale)
    base = sampled(tmp_path / "own", dog / "adapter.safetensors", scale=0.0, seed=3)
    assert np.array_equal(grid[0][0], base) and np.array_equal(grid[0][1], base)
    assert not np.array_equal(grid[1][1], grid[2][1])
    said = json.loads(made.text["tlora"])
    assert said["axes"] == {"step": ["0", "2", "6"], "scale": ["0.5", "1.5"]}
    assert said["seed"] == 3 and "scale" not in said


def test_without_the_schedule_all_ranks_act(
    dog: Path, sheet: Sheet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base's blocks take turns meanwhile: weights that lie elsewhere round otherwise."""
    offloaded = []
    real, on_a_card = base_model.offload, sessions.choose_device
    monkeypatch.setattr(base_model, "offload", lambda *a: offloaded.append(a) or real(*a))
    monkeypatch.setattr(sessions, "choose_device", lambda *a, offload: on_a_card(*a))
    chosen = ("--values", "seed=1,2", "--values", "schedule=none,trained")
    made = sheet(dog, "--over", "schedule,seed", *chosen, "--offload")
    assert len(offloaded) == 3, "two text encoders and the denoiser"
    monkeypatch.undo()
    none, trained = (row[0] for row in cells(made, 2, 2))
    adapter = dog / "adapter.safetensors"
    assert most_apart(none, sampled(tmp_path / "own", adapter, seed=1, min_rank=4)) <= 1
    assert most_apart(trained, sampled(tmp_path / "own", adapter, seed=1)) <= 1
    assert most_apart(none, trained) > 3


def most_apart(one: Any, other: Any) -> int:
    """Return the largest difference of two pictures, in levels."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.full
def test_adapters_beside_one_another_each_with_its_own_word(
    dog: Path, tiny_sdxl: Path, sheet: Sheet, tmp_path: Path
) -> None:
    word = tmp_path / "word"
    run(tiny_sdxl, word, adapter={"method": "textual_inversion"}, train__steps=2,
        train__checkpoint__every=2, train__optimizer__lr=1.0, sampling__steps=2)  # fmt: skip
    made = sheet(f"mine={dog}", word / "run", "--over", "method")
    first, second = cells(made, 1, 2)[0]
    assert np.array_equal(first, sampled(tmp_path / "own", dog / "adapter.safetensors"))
    assert np.array_equal(second, sampled(tmp_path / "own", word / "run" / "adapter.safetensors"))
    assert json.loads(made.text["tlora"])["axes"] == {"method": ["mine", "textual_inversion"]}


def test_sheets_are_numbered_and_nothing_is_overwritten(dog: Path, sheet: Sheet) -> None:
    words = (dog / "adapter.safetensors", "--over", "scale", "--values", "scale=1")
    names = {Path(sheet(*words).filename).name for _ in range(2)}
    assert names == {"0000_scale.png", "0001_scale.png"}


# --- axes and values ------------------------------------------------------------------------------


def source(path: str = "run", steps: tuple[int, ...] = (), method: str = "tlora") -> Source:
    files = {step: Path(path) / str(step) for step in steps}
    return Source("", Path(path), Path(path) / "adapter", files, AdapterInfo(method=method))


def test_the_first_axis_goes_down_and_one_axis_across() -> None:
    plan = plan_cells([source(steps=(10, 20, 30))], ("step", "scale"), {}, 1.0, 0)
    assert plan.rows == ["step 10", "step 20", "step 30"]
    assert plan.columns == ["scale 0.5", "scale 0.75", "scale 1", "scale 1.25"]
    assert [(c.row, c.column) for c in plan.cells] == [(r, c) for r in range(3) for c in range(4)]
    alone = plan_cells([source()], ("seed",), {}, 0.7, 5)
    assert alone.rows == [""] and alone.columns == [f"seed {n}" for n in range(5, 9)]
    assert {c.scale for c in alone.cells} == {0.7}


def test_of_many_checkpoints_a_few_are_shown_with_both_ends() -> None:
    plan = plan_cells([source(steps=tuple(range(50, 1001, 50)))], ("step",), {}, 1.0, 0)
    assert plan.columns == [f"step {n}" for n in (50, 250, 450, 600, 800, 1000)]


def test_runs_share_their_steps() -> None:
    both = [source("a", (1, 2, 4)), source("b", (2, 4, 8), "lora")]
    plan = plan_cells(both, ("step", "method"), {}, 1.0, 0)
    assert plan.rows == ["step 2", "step 4"] and plan.columns == ["tlora", "lora"]
    alike = [source("x/a", (1,)), source("x/b", (1,))]
    assert plan_cells(alike, ("method",), {}, 1.0, 0).columns == ["tlora: a", "tlora: b"]


@pytest.mark.parametrize(
    ("over", "values", "message"),
    [
        ("stop,scale", [], "did you mean step?"),
        ("step,scale,seed", [], "two axes"),
        ("scale,scale", [], "two axes"),
        ("", [], "two axes"),
        ("scale", ["seed=1"], "no axis of this sheet"),
        ("scale", ["scale"], "no axis of this sheet"),
        ("scale", ["scale="], "no value is named"),
        ("scale", ["scale=strong"], "not a number"),
        ("scale", ["scale=nan"], "not a number"),
        ("step", ["step=-1"], "whole number"),
        ("seed", ["seed=1.5"], "whole number"),
        ("schedule", ["schedule=liner"], "did you mean linear?"),
        ("schedule", ["schedule=piecewise"], "there is no schedule"),
        ("method", ["method=lora"], "the adapters themselves"),
    ],
)
def test_wrong_axes_and_values_are_told(over: str, values: list[str], message: str) -> None:
    with pytest.raises(UserError) as told:
        parse_values(values, parse_axes(over))
    assert message in str(told.value) and told.value.do


@pytest.mark.parametrize(
    ("sources", "axes", "given", "message"),
    [
        ([source(), source()], ("scale",), {}, "no axis goes over them"),
        ([source()], ("method",), {}, "needs several adapters"),
        ([source()], ("step",), {}, "this is one adapter"),
        ([source()], ("step",), {"step": (5,)}, "no checkpoint of step 5"),
        ([source(steps=(1, 2))], ("step",), {"step": (5,)}, "its steps are 1, 2"),
        ([source("a", (1,)), source("b", (2,))], ("method", "step"), {}, "no step in common"),
        ([source()], ("seed",), {"seed": tuple(range(401))}, "more than 400"),
    ],
)
def test_axes_that_do_not_suit_the_adapters_are_told(
    sources: list[Source], axes: tuple[str, ...], given: Any, message: str
) -> None:
    with pytest.raises(UserError) as told:
        plan_cells(sources, axes, given, 1.0, 0)
    assert message in str(told.value)


def test_a_run_that_is_not_finished_has_its_checkpoints(dog: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    (part / "checkpoints").mkdir(parents=True)
    for name in ("checkpoint-000002", "checkpoint-000004"):
        (part / "checkpoints" / name).symlink_to(dog / "checkpoints" / name)
    found = find_source(str(part))
    assert list(found.steps) == [2, 4] and found.result.parent.name == "checkpoint-000004"
    assert list(find_source(str(dog)).steps) == [2, 4, 6]
    assert find_source(str(dog / "adapter.safetensors")).steps == {}
    with pytest.raises(UserError, match="does not exist"):
        find_source(str(tmp_path / "none"))


def test_a_method_without_a_schedule_is_told_before_anything_is_loaded(
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(tiny_sdxl, tmp_path, adapter={"method": "lora", "rank": 2}, train__steps=1)
    monkeypatch.setattr(sessions, "load_text", lambda *a, **k: pytest.fail("it was loaded"))
    words = ["sheet", str(tmp_path / "run"), "--prompt", PROMPT, "--over", "schedule,scale"]
    monkeypatch.setattr("sys.argv", ["tlora", *words])
    assert main() == 2
    assert "lora has no rank schedule" in capsys.readouterr().err


# --- the picture ----------------------------------------------------------------------------------


def test_small_drawings_grow_sharp_and_photographs_are_made_smaller() -> None:
    assert side_on_sheet(64, 64) == (192, 192) and side_on_sheet(100, 50) == (200, 100)
    assert side_on_sheet(1024, 512) == (512, 256) and side_on_sheet(300, 300) == (300, 300)
    assert LEAST == 192


def test_long_labels_and_prompts_stay_on_the_sheet() -> None:
    picture = Image.new("RGB", (64, 64), "red")
    words = " ".join(["word"] * 60)
    block = Block(words, [[picture] * 3] * 2)
    made = np.asarray(lay_out([block], ["one", "two"], ["n" * 400, words, "c"], words))
    edge = made[:, -10:], made[:, :10], made[:5], made[-5:]
    assert all((part == 255).all() for part in edge)
    red = (made == [255, 0, 0]).all(axis=2)
    assert red.sum() == 6 * 192 * 192  # no label lies on a picture
