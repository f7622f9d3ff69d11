"""`tlora compare --set`: other seeds, concepts, bases and settings than the grid's."""

from __future__ import annotations

from pathlib import Path

import pytest
from compare_runs import grid_values, write_grid
from grid_texts import RECIPE
from training_runs import ROOT, draw_picture, tlora

from tlora_cli.comparison.cells import Plan
from tlora_cli.comparison.grid_io import load_grid
from tlora_cli.comparison.planning import make_plan
from tlora_cli.foundation.errors import UserError

GRID = (
    RECIPE
    + """\
grid:
  - {method: [lora, tlora], rank: [4, 16], concept: [pip, momo], seed: [0, 1]}
  - {method: [oft], concept: [pip]}
variants:
  plain: {}
  noisy: {train.timesteps.low: 800}
"""
)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(*options: str, text: str = GRID) -> Plan:
    Path("g.yaml").write_text(text)
    return make_plan(load_grid(Path("g.yaml"), options))


def test_an_axis_takes_other_values() -> None:
    made = plan("seed=7", "concept=kiwi", "rank=8", "variant=plain")
    assert [cell.name for cell in made.cells] == [
        "lora-r8-plain-kiwi-s7",
        "tlora-r8-linear-plain-kiwi-s7",
        "oft-plain-kiwi-s7",  # seed and concept go everywhere, a rank where there is one
    ]
    assert {cell.recipe.train.seed for cell in made.cells} == {7}
    assert {cell.recipe.concept.images for cell in made.cells} == {"toy:kiwi/1"}
    assert {cell.seed for cell in plan("seed=7,8,9").cells} == {7, 8, 9}


def test_a_concept_of_ones_own_and_a_schedule() -> None:
    draw_picture(Path("rex.png"))
    text = GRID.replace("  - {method: [oft], concept: [pip]}\n", "").replace("lora, tlora", "tlora")
    made = plan(
        "concept=pip,{name: rex, images: rex.png, class: dog}",
        "schedule=[cosine, {kind: linear, alpha: 2}]",
        "seed=0",
        "rank=4",
        "variant=plain",
        text=text,
    )
    assert [cell.name for cell in made.cells] == [
        f"tlora-r4-{schedule}-plain-{concept}-s0"
        for schedule in ("cosine", "linear-alpha2")
        for concept in ("pip", "rex")
    ]
    assert made.cells[1].recipe.concept.class_name == "dog"


def test_keys_of_recipe_and_grid() -> None:
    Path("recipe.yaml").write_text("family: sdxl\nbase: toy-sdxl\n")
    in_file = GRID.replace(RECIPE, "recipe: recipe.yaml\noutput: out\n")
    for text in (GRID, in_file):
        options = ("family=flux", "base=toy-flux", "train.steps=9", "threads=2", "output=else")
        made = plan(*options, "evaluate.count=3", "method=lora", text=text)
        assert {(one.recipe.base.model, one.recipe.train.steps) for one in made.cells} == {
            ("toy-flux", 9)
        }
        assert (made.grid.threads, made.grid.evaluate.count, made.folder) == (2, 3, Path("else"))
        assert plan(text=text).cells[0].recipe.base.model == "toy-sdxl", "the file is as it was"


WRONG = {
    "a seed below 0": (["seed=-1"], "--set seed=-1: seed: must be at least 0, got -1"),
    "no value": (["seed="], "--set seed=: seed: write AXIS=VALUES, such as seed=7,8"),
    "an unknown concept": (["concept=pipp"], "--set concept=pipp: concept[0]: pipp is no concept"),
    "a key that is none": (["train.stepz=4"], "--set train.stepz=4: train.stepz: unknown key; did"),
    "a key of the grid that is none": (
        ["evaluate.cuont=4"],
        "--set evaluate.cuont=4: evaluate.cuont: unknown key; did you mean `evaluate.count`?",
    ),
    "what an axis sets": (
        ["train.seed=4"],
        "--set train.seed=4: train.seed: is set by the grid's axis seed; write seed=VALUES",
    ),
    "what a variant sets": (
        ["train.timesteps={low: 4}"],
        "--set train.timesteps={low: 4}: train.timesteps: is set by the variants noisy; take "
        "others with variant=NAMES",
    ),
    "no list": (["seed=[1"], "--set seed=[1: seed: "),
    "a variant that is none": (
        ["variant=loud"],
        "--set variant=loud: grid[0].variant: there is no variant 'loud'; ",
    ),
    "too many steps": (
        ["train.steps=0"],
        "--set train.steps=0: train.steps: must be at least 1, got 0",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_names_the_option_once(case: str) -> None:
    options, said = WRONG[case]
    with pytest.raises(UserError) as caught:
        plan(*options)
    lines = [line for line in str(caught.value).splitlines() if line.startswith("  --set")]
    assert sum(line.startswith(f"  {said}") for line in lines) == 1, lines


def test_what_no_variant_of_the_grid_sets_can_be_set() -> None:
    made = plan("train.timesteps.low=4", "variant=plain", "method=lora")
    assert {cell.recipe.train.timesteps.low for cell in made.cells} == {4}


@pytest.mark.parametrize(
    "grid", sorted(path.name for path in (ROOT / "configs" / "lab").glob("*s.yaml"))
)
def test_the_grids_of_the_laboratory_take_other_seeds_and_concepts(
    grid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    before = make_plan(load_grid(Path("configs/lab") / grid))
    made = make_plan(load_grid(Path("configs/lab") / grid, ["seed=7", "concept=otto"]))
    assert made.arms == before.arms
    assert [cell.pair for cell in made.cells] == [("otto", 7)] * len(made.arms)


def test_through_the_command_line(tiny_sdxl: Path, tmp_path: Path) -> None:
    write_grid(tmp_path / "g.yaml", grid_values(tiny_sdxl, tmp_path))
    options = ("--set", "seed=7", "--only", "method=lora", "--dry-run")
    done = tlora("compare", tmp_path / "g.yaml", *options)
    names = done.stdout.split()
    assert names and all(name.startswith("lora-") and name.endswith("-s7") for name in names)
    refused = tlora("compare", tmp_path / "g.yaml", "--only", "seed=7")
    assert refused.returncode == 2 and "to run others: --set seed=VALUES" in refused.stderr
