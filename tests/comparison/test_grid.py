"""Grid files: their cells, and all that is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from grid_texts import RECIPE, mistakes, plan
from PIL import Image

from tlora_cli.comparison.grid import label_of
from tlora_cli.comparison.grid_io import load_grid
from tlora_cli.comparison.planning import make_plan
from tlora_cli.comparison.selection import part_of
from tlora_cli.foundation.errors import UserError
from tlora_cli.methods import METHODS
from tlora_cli.recipe.adapter_sections import ScheduleConfig
from tlora_cli.recipe.strict_section import MethodName

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- mistakes -------------------------------------------------------------------------------------


OVERLAPPING = (
    RECIPE
    + """\
grid:
  - {method: [lora, tlora], rank: [4, 16], concept: [pip, momo], seed: [0, 7]}
  - {method: [oft], concept: [pip], seed: [0]}
baseline: {method: lora, rank: 16}
"""
)


def test_a_part_of_a_grid() -> None:
    whole = plan(OVERLAPPING)
    part = part_of(whole, ["seed=7", "method=lora,tlora", "rank=16"])
    assert [cell.name for cell in part.cells] == [
        "lora-r16-pip-s7",
        "lora-r16-momo-s7",
        "tlora-r16-linear-pip-s7",
        "tlora-r16-linear-momo-s7",
    ]
    assert [(a.name, b.name) for a, b in part.baselines.items()] == [
        ("tlora-r16-linear", "lora-r16")
    ]
    assert [cell.name for cell in part_of(whole, ["rank=none"]).cells] == ["oft-pip-s0"]
    assert part_of(whole, ["method=tlora"]).baselines == {}
    assert part_of(whole, []) == whole


@pytest.mark.parametrize(
    ("only", "what", "do"),
    [
        (["seed=3"], "the grid has no seed '3'", "known: 0, 7; to run others: --set seed=VALUES"),
        (["base=toy-flux"], "no axis 'base'", "for all cells with --set base=VALUE"),
        (["method=lorra"], "the grid has no method 'lorra'", "did you mean lora?"),
        (["seeds=0"], "no axis 'seeds'", "did you mean seed?"),
        (["seed"], "'seed' is no choice", "AXIS=VALUE"),
        (["method=oft", "rank=4"], "no cell fits all of method=oft rank=4", "leave one"),
    ],
)
def test_a_part_that_is_not_there(only: list[str], what: str, do: str) -> None:
    with pytest.raises(UserError) as caught:
        part_of(plan(OVERLAPPING), only)
    assert caught.value.what == what
    assert do in (caught.value.do or "")


def test_all_mistakes_of_the_file_at_once() -> None:
    text = """\
recipe: 5
grid:
  method: [lora, t-lora]
  rank: [4, 0]
  ranks: [4]
  concept: [pip, {name: a b}, 7]
  schedule: [lineer, {kind: step}]
  seed: 0
variants: {x y: {}, z: 5}
baseline: {rank: 4}
evaluate: {metrics: [clip, dyno], count: 0, suite: alive, sections: [a]}
workers: 0
outputt: runs
"""
    found = mistakes(text)
    for line in (
        "line 1: recipe: must be the path of a recipe, or a recipe",
        "line 3: grid.method[1]: must be one of lora, vanilla_tlora,",
        "line 4: grid.rank: must be at least 1, got 0",
        "line 5: grid.ranks: unknown key; did you mean `grid.rank`?",
        "line 6: grid.concept[2]: must be a concept's name or a section (name, images,",
        "line 7: grid.schedule[0]: must be one of linear, constant, cosine, step, piecewise, "
        "reversed, random, got the text 'lineer'; did you mean linear?",
        "line 8: grid.seed: must be a list, got 0",
        "line 9: variants.z: must be a section, got 5",
        "line 10: baseline.method: missing (one of lora,",
        "line 11: evaluate.metrics: there is no metric 'dyno'; did you mean dino? known: clip,",
        "line 11: evaluate.count: must be at least 1, got 0",
        "line 11: evaluate.suite: must be one of live, object, got the text 'alive'; did you mean",
        "line 12: workers: must be at least 1, got 0",
        "line 13: outputt: unknown key; did you mean `output`?",
        "output: missing (Folder for all runs and tables.)",
    ):
        assert sum(one.startswith(line) for one in found) == 1, (line, found)
    assert any("got the text 't-lora'; did you mean tlora?" in one for one in found)
    assert any("'a b' is no name; take letters, digits, _ and -" in one for one in found)


WRONG: dict[str, tuple[str, list[str]]] = {
    "a schedule on a method without ranks": (
        "grid: {method: [tlora, oft, lora], schedule: [cosine], concept: [pip]}",
        [
            "line 5: grid.schedule: oft, lora have no rank schedule; let `grid` be a list, with a "
            "section without schedule for such methods"
        ],
    ),
    "ranks for none": (
        "grid: {method: [oft, svdiff], rank: [4], concept: [pip]}",
        ["line 5: grid.rank: oft, svdiff: no ranks; drop it"],
    ),
    "an unknown concept": (
        "grid: {method: [lora], concept: [pipp]}",
        [
            "line 5: grid.concept[0]: pipp is no concept of the built-in world (did you mean pip? "
            "known: pip, momo, finn, kiwi, toto, casa, otto, boo, luna, nova, mimi, rosa); a "
            "concept of your own needs name, images and class"
        ],
    ),
    "pictures that are not there": (
        "grid: {method: [lora], concept: [{name: a, images: no.jpg, class: dog}, {name: b, "
        "images: toy:pip/9, class: dog}, {name: c, images: toy:pip/1}]}",
        ["line 5: grid.concept[2].class: missing (Class of the concept, e.g. dog.)"],
    ),
    "files that are not there": (
        "grid: {method: [lora], concept: [{name: a, images: no.jpg, class: dog}, {name: b, "
        "images: toy:pip/9, class: dog}]}",
        [
            "line 5: grid.concept: there is no no.jpg (lora-a)",
            "line 5: grid.concept: the concept pip has no picture '9'; its pictures are 1 to 4 "
            "(lora-b)",
        ],
    ),
    "a variant's keys": (
        "grid: {method: [lora, tlora], rank: [4], concept: [pip]}\nvariants:\n"
        "  a: {train.stepz: 4}\n  b: {adapter.rank: 8}\n  c: {train: {steps: 4}}\n"
        "  d: {adapter.min_rank: 2}\n  e: {output.dir: x}\n  f: {lr: 1.0}\n",
        [
            "line 7: variants.a.train.stepz: unknown key; did you mean `train.steps`? "
            "(lora-4-a-pip, tlora-4-a-pip)",
            "line 8: variants.b.adapter.rank: is set by the grid's axis rank",
            "line 9: variants.c.train: name the values one by one: train.steps",
            "line 10: variants.d.adapter.min_rank: 2 is above rank 4",
            "line 11: variants.e.output.dir: is set for each cell; drop it",
            "line 12: variants.f.lr: unknown key; `lr` belongs under `train.optimizer` "
            "(lora-4-f-pip, tlora-4-f-pip)",
        ],
    ),
    "a variant there is not": (
        "grid: {method: [lora], concept: [pip], variant: [lng]}\nvariants: {long: {}}",
        ["line 5: grid.variant: there is no variant 'lng'; did you mean long? known: long"],
    ),
    "no concept at all": (
        "grid: {method: [lora]}",
        ["line 1: recipe.concept: missing section; it needs images and class"],
    ),
    "a baseline there is not": (
        "grid: {method: [lora], concept: [pip]}\nbaseline: {method: tlora}",
        ["line 6: baseline: no cell is method tlora; there are lora-r16"],
    ),
    "prompts there are not": (
        "grid: {method: [lora], concept: [pip]}\nevaluate: {prompts: none.yaml}",
        ["line 6: evaluate.prompts: there is no such prompts file; check the path"],
    ),
    "twice": (
        "grid: {method: [lora, lora], rank: [4, 4], concept: [pip, pip]}",
        [
            "line 5: grid.method: lora is given twice",
            "line 5: grid.rank: 4 is given twice",
            "line 5: grid.concept: pip is given twice",
        ],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit(case: str) -> None:
    text, expected = WRONG[case]
    found = mistakes(RECIPE + text)
    if case == "a variant's keys":
        # Of a least rank above a rank, and of one for a method without, each is told.
        found = [line for line in found if "always uses its full rank" not in line]
        expected = [line for line in expected if "variants.d" not in line]
    assert found == expected


def test_mistakes_of_the_base_recipe_say_their_file() -> None:
    Path("base.yaml").write_text("family: sdxl\nbase: toy-sdxl\ntrain:\n  stepz: 3\n")
    assert mistakes("recipe: base.yaml\noutput: out\ngrid: {method: [lora], concept: [pip]}\n") == [
        "line 1: recipe: base.yaml, line 4: train.stepz: unknown key; did you mean `train.steps`?"
    ]
    assert mistakes("recipe: no.yaml\noutput: out\ngrid: {method: [lora]}\n") == [
        "line 1: recipe: there is no such recipe"
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "the grid is empty"),
        ("- a", "the grid must be `key: value` lines, got a list"),
        ("a: [", "not valid YAML"),
    ],
)
def test_what_is_no_grid(text: str, what: str) -> None:
    Path("g.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_grid(Path("g.yaml"))
    assert what in str(caught.value)


def test_a_grid_that_is_not_there() -> None:
    with pytest.raises(UserError, match="there is no such grid"):
        load_grid(Path("none.yaml"))


def test_a_schedule_s_label_says_its_axis() -> None:
    axes = [ScheduleConfig(kind="cosine", axis=axis) for axis in ("timestep", "logsnr")]
    assert [label_of(one) for one in axes] == ["cosine", "cosine-logsnr"]
    points = ScheduleConfig(kind="step", points=[(0, 4)], axis="logsnr")
    assert label_of(points) == "step-logsnr-0_4"


def test_the_shipped_grid() -> None:
    path = ROOT / "configs" / "compare_toy.yaml"
    found = make_plan(load_grid(path))
    assert len(found.cells) == 8
    assert {(c.arm.method, c.arm.rank) for c in found.cells} == {
        (method, rank) for method in ("lora", "tlora") for rank in (4, 16)
    }
    assert {c.pair for c in found.cells} == {("pip", 0), ("momo", 0)}
    assert len(found.baselines) == 2
    assert {c.recipe.train.steps for c in found.cells} == {400}, "equal steps"
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for label in ("# Command: ", "# Expect: ", "# Takes: "):
        assert sum(line.startswith(label) for line in head) == 1, label


def test_the_shipped_grid_of_both_recipes() -> None:
    path = ROOT / "configs" / "photo_or_paper.yaml"
    own = path.read_text().replace("dog/02.jpg", "dog.jpg")
    Image.new("RGB", (64, 64)).save("dog.jpg")
    Path("own.yaml").write_text(own)
    found = make_plan(load_grid(Path("own.yaml")))
    recipes = {(c.arm.method, c.arm.variant): c.recipe for c in found.cells}
    assert set(recipes) == {(m, v) for m in ("tlora", "lora") for v in ("paper", "photo")}
    for (_, variant), recipe in recipes.items():
        assert recipe.recipe == variant
        assert (recipe.concept.scenes is not None) == (variant == "photo")
    head = [line for line in own.splitlines() if line.startswith("#")]
    for label in ("# Command: ", "# Expect: ", "# Takes: "):
        assert sum(line.startswith(label) for line in head) == 1, label


def test_names_are_those_of_the_program() -> None:
    assert set(get_args(MethodName)) == set(METHODS)


def test_every_key_is_documented() -> None:
    from tlora_cli.comparison import grid

    text = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    models: list[Any] = [grid.Grid, grid.Block, grid.EvaluateConfig, grid.ConceptEntry]
    keys = [info.alias or name for model in models for name, info in model.model_fields.items()]
    assert len(keys) > 25
    assert not [key for key in keys if f"`{key}`" not in text]
