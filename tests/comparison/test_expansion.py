"""A grid's cells and baselines."""

from __future__ import annotations

from pathlib import Path

import pytest
from grid_texts import RECIPE, names, plan

from tlora_cli.comparison.cells import Arm
from tlora_cli.comparison.grid import BaselineConfig
from tlora_cli.comparison.planning import match_baselines


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- cells ----------------------------------------------------------------------------------------


def test_every_combination_is_a_cell() -> None:
    found = plan(
        RECIPE
        + """\
grid:
  method: [lora, tlora]
  rank: [4, 16]
  concept: [pip, momo]
  seed: [0, 7]
"""
    )
    assert len(found.cells) == 16
    assert len({cell.name for cell in found.cells}) == 16
    assert found.arms == [
        Arm("lora", 4, None, None),
        Arm("lora", 16, None, None),
        Arm("tlora", 4, "linear", None),
        Arm("tlora", 16, "linear", None),
    ]
    last = found.cells[-1]
    assert last.name == "tlora-r16-linear-momo-s7"
    recipe = last.recipe
    assert (recipe.adapter.method, recipe.adapter.rank, recipe.adapter.min_rank) == ("tlora", 16, 8)
    assert (recipe.concept.images, recipe.concept.class_name) == ("toy:momo/1", "cat")
    assert (recipe.train.seed, recipe.output.dir) == (7, f"out/cells/{last.name}/run")
    # What the recipe leaves out has the settings of the method on this base.
    rates = {
        method: {c.recipe.train.optimizer.lr for c in found.cells if c.arm.method == method}
        for method in ("lora", "tlora")
    }
    assert rates == {"lora": {1e-4}, "tlora": {3e-4}}


def test_methods_without_ranks_run_once() -> None:
    text = RECIPE + "grid: {method: [lora, oft, svdiff, dreambooth], rank: [4, 8], concept: [pip]}"
    assert names(text) == [
        "lora-r4-pip-s0",
        "lora-r8-pip-s0",
        "oft-pip-s0",
        "svdiff-pip-s0",
        "dreambooth-pip-s0",
    ]


def test_the_base_recipe_may_be_for_another_method() -> None:
    Path("base.yaml").write_text(
        "family: sdxl\nbase: toy-sdxl\nconcept: {images: toy:pip/1, class: star}\n"
        "adapter: {method: tlora, rank: 8, min_rank: 2, schedule: {kind: cosine}}\n"
        "train: {steps: 30, seed: 3}\noutput: {dir: elsewhere}\n"
    )
    found = plan(
        "recipe: base.yaml\noutput: out\ngrid: {method: [tlora, ortho_lora, gsoft, lora]}\n"
    )
    own, ortho, gsoft, lora = (cell.recipe.adapter for cell in found.cells)
    assert (own.rank, own.min_rank, own.schedule.kind) == (8, 2, "cosine")
    assert (ortho.rank, ortho.min_rank, ortho.schedule.kind) == (8, 8, "linear")
    assert (gsoft.blocks, gsoft.schedule.kind) == (16, "linear")  # of the built-in base
    assert lora.rank == 8
    assert {cell.recipe.train.steps for cell in found.cells} == {30}
    assert [cell.name for cell in found.cells] == [
        "tlora-r8-cosine-pip-s3",
        "ortho_lora-r8-pip-s3",
        "gsoft-pip-s3",
        "lora-r8-pip-s3",
    ]


def test_schedules_and_several_grids() -> None:
    text = (
        RECIPE
        + """\
grid:
  - {method: [lora], rank: [12], concept: [pip]}
  - method: [vanilla_tlora]
    rank: [16]
    schedule:
      - linear
      - reversed
      - {kind: linear, alpha: 2.0}
      - {kind: step, points: [[0, 16], [800, 8]]}
    concept: [pip]
"""
    )
    found = plan(text)
    assert [cell.arm.schedule for cell in found.cells] == [
        None,
        "linear",
        "reversed",
        "linear-alpha2",
        "step-0_16-800_8",
    ]
    assert found.cells[-1].recipe.adapter.schedule.points == [(0, 16), (800, 8)]
    # The same cell twice is one cell.
    assert len(names(text + "  - {method: [lora], rank: [12, 4], concept: [pip]}\n")) == 6


def test_variants_change_any_key() -> None:
    found = plan(
        RECIPE
        + """\
grid:
  - {method: [tlora], rank: [16], concept: [pip, momo]}
  - {method: [lora], rank: [16], concept: [pip, momo], variant: [three]}
variants:
  plain: {}
  noisy: {train.timesteps.low: 800}
  three: {concept.images: ["toy:{concept}/1", "toy:{concept}/2", "toy:{concept}/3"]}
  most: {adapter.min_rank: 16, train.optimizer: {name: prodigy}, adapter.init: weights_principal}
"""
    )
    assert len(found.cells) == 10
    by_name = {cell.name: cell for cell in found.cells}
    assert by_name["tlora-r16-linear-plain-pip-s0"].recipe.train.timesteps.low == 0
    assert by_name["tlora-r16-linear-noisy-momo-s0"].recipe.train.timesteps.low == 800
    three = by_name["lora-r16-three-momo-s0"]
    assert three.recipe.concept.images == ["toy:momo/1", "toy:momo/2", "toy:momo/3"]
    assert three.images == "toy:momo/1", "all are measured against the same picture"
    most = by_name["tlora-r16-linear-most-pip-s0"].recipe
    assert (most.adapter.min_rank, most.adapter.init) == (16, "weights_principal")
    assert (most.train.optimizer.name, most.train.optimizer.lr) == ("prodigy", 1.0)


def test_concepts_of_your_own(tmp_path: Path) -> None:
    (tmp_path / "dog.jpg").touch()
    found = plan(
        "recipe:\n  family: sdxl\n  base: some/model\n"
        "  concept: {images: x.jpg, class: cat, masks: m.png, placeholder: zwx}\noutput: out\n"
        "grid:\n  concept:\n    - {name: rex, images: dog.jpg, class: dog}\n    - pip\n"
        "  method: [lora]\n  seed: [0, 1]\n"
    )
    rex, _, pip, _ = found.cells
    assert (rex.concept, rex.recipe.concept.images, rex.recipe.concept.class_name) == (
        "rex",
        "dog.jpg",
        "dog",
    )
    assert rex.recipe.concept.masks is None, "masks belong to the recipe's own picture"
    assert (pip.recipe.concept.placeholder, pip.recipe.concept.class_name) == ("zwx", "star")


def test_masks_that_are_found_by_themselves_stay(tmp_path: Path) -> None:
    found = plan(
        "recipe:\n  family: sdxl\n  base: some/model\n"
        "  concept: {images: 'toy:momo/1', class: cat, masks: auto, mask_model: some/clipseg}\n"
        "output: out\ngrid:\n  concept: [pip]\n  method: [lora]\n  seed: [0]\n"
    )
    [cell] = found.cells
    assert cell.recipe.concept.images == "toy:pip/1"
    assert (cell.recipe.concept.masks, cell.recipe.concept.mask_model) == ("auto", "some/clipseg")


# --- baselines ------------------------------------------------------------------------------------


def test_a_baseline_of_open_rank_is_matched_rank_by_rank() -> None:
    lora = [Arm("lora", rank, None, None) for rank in (4, 16)]
    tlora = [Arm("tlora", rank, "linear", None) for rank in (4, 16)]
    found = match_baselines([*lora, *tlora], BaselineConfig(method="lora"))
    assert found == dict(zip(tlora, lora, strict=True))
    one = match_baselines([*lora, *tlora], BaselineConfig(method="lora", rank=4))
    assert one == {lora[1]: lora[0], tlora[0]: lora[0], tlora[1]: lora[0]}
    oft = Arm("oft", None, None, None)
    with pytest.raises(ValueError, match="for oft it may be any of lora-r4, lora-r16; say more"):
        match_baselines([*lora, oft], BaselineConfig(method="lora"))
    assert match_baselines([lora[0], oft], BaselineConfig(method="lora")) == {oft: lora[0]}
    with pytest.raises(ValueError, match="no cell is method svdiff; there are lora-r4"):
        match_baselines(lora, BaselineConfig(method="svdiff"))
