"""configs/paper: the paper's tables as grids, with its settings, its figures, and what it lacks."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from compare_runs import finish_cell
from training_runs import ROOT, draw_picture, tlora

from tlora_cli.comparison.cells import Plan
from tlora_cli.comparison.grid_io import load_grid
from tlora_cli.comparison.page import page
from tlora_cli.comparison.pictures import pictures_of
from tlora_cli.comparison.planning import make_plan
from tlora_cli.comparison.published import beside
from tlora_cli.comparison.summary import summarize
from tlora_cli.comparison.tables import markdown
from tlora_cli.comparison.tasks import read_result, task_of

FOLDER = ROOT / "configs" / "paper"
GRIDS = {
    "table1": {f"{m}-r{r}" for m in ("lora", "vanilla_tlora", "tlora") for r in (4, 8, 16, 32, 64)},
    "table2": {
        *("lora-r64", "vanilla_tlora-r64", "ortho_lora-r64", "tlora-r64", "oft", "gsoft"),
        "svdiff",
    },
    "table4": {
        f"{m}-{n}" for m in ("lora-r64", "oft", "tlora-r64") for n in ("one", "two", "three")
    },
    "table5": {f"{m}-r{r}" for m in ("lora", "tlora") for r in (4, 16, 64)},
    "figure4": {"lora-r64", "ortho_lora-r64"},
    "figure5": {
        f"tlora-r64-{a}-{b}" for a in ("random", "weights") for b in ("last", "middle", "principal")
    },
    "figure6": {"tlora-r64-whole", "tlora-r64-half", "tlora-r64-quarter"},
}
"""Grid -> its arms, without what is the same in all."""
STEPS = {
    "sdxl": {"lora": 500, "vanilla_tlora": 500, "ortho_lora": 800, "tlora": 800, "oft": 800}
    | {"gsoft": 800, "svdiff": 1600},
    "flux": {"lora": 400, "tlora": 500},
}
"""Family -> method -> steps, as published."""


@pytest.fixture(autouse=True)
def _concepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "concepts" / "dog6").mkdir(parents=True)
    for number in range(3):
        draw_picture(tmp_path / "concepts" / "dog6" / f"0{number}.png", number)


def plan_of(name: str) -> Plan:
    return make_plan(load_grid(FOLDER / f"{name}.yaml"))


def test_all_are_found() -> None:
    assert {path.stem for path in FOLDER.glob("*")} == set(GRIDS)


@pytest.mark.parametrize("name", GRIDS)
def test_arms_and_settings_are_the_papers(name: str) -> None:
    plan = plan_of(name)
    arms = {re.sub(r"-(linear|plain|blocks64)\b", "", arm.name) for arm in plan.arms}
    assert arms == GRIDS[name]
    for cell in plan.cells:
        recipe, method = cell.recipe, cell.arm.method
        assert recipe.family == ("flux" if name == "table5" else "sdxl")
        assert recipe.train.steps == STEPS[recipe.family][method]
        assert (recipe.train.resolution, recipe.train.batch_size) == (1024, 1)
        if recipe.family == "sdxl" and cell.arm.schedule and name != "figure6":
            assert recipe.adapter.min_rank == (cell.arm.rank or 0) // 2
        assert (cell.concept, recipe.concept.class_name) == ("dog6", "dog")
        assert pictures_of(cell, plan) == 15 + 5 * 31
    blocks = {cell.arm.method: cell.recipe.adapter.blocks for cell in plan.cells}
    assert (blocks.get("oft", 32), blocks.get("gsoft", 64)) == (32, 64)
    images = sorted(len(cell.recipe.concept.images) for cell in plan.cells)
    assert images == ([1, 1, 1, 2, 2, 2, 3, 3, 3] if name == "table4" else [1] * len(images))
    assert all(len(cell.images) == 3 for cell in plan.cells)


@pytest.mark.parametrize("name", GRIDS)
def test_every_published_figure_is_one_arm_s(name: str) -> None:
    plan = plan_of(name)
    published = plan.grid.published
    assert published is not None and published.source.endswith("of T-LoRA, arXiv 2507.05964v2")
    assert len(published.notes) >= 6
    _, rows = beside(summarize(plan, {}, {}))
    assert len(rows) == len(published.figures) == len({row[0] for row in rows})
    assert bool(rows) == name.startswith("table")
    head = (FOLDER / f"{name}.yaml").read_text().split("\n\n")[0]
    for label in ("# Command: ", "# Needs: ", "# Expect: ", "# Takes: "):
        assert head.count(label) == 1
    assert f"tlora compare configs/paper/{name}.yaml" in head


def test_figures_stand_beside_ones_own(tmp_path: Path) -> None:
    plan = plan_of("table4")
    task = task_of(plan.cells[0], plan)
    finish_cell(task, 0.5)
    result = read_result(task)
    assert result is not None
    result.scores["clip TS (class)"] = 0.31
    summary = summarize(plan, {task.name: result}, {})
    assert beside(summary)[1][:2] == [
        ["lora r64 one", "0.310", "0.232"],
        ["oft one", "", "0.247"],
    ]
    text = markdown(summary)
    assert "Beside table 4 of T-LoRA, arXiv 2507.05964v2:" in text
    assert "| lora r64 one | 0.310 | 0.232 |" in text
    html = page(summary, "Table 4")
    assert "Beside the published figures" in html and "how many seeds a concept was trained" in html


def small(name: str, tiny: Path, folder: Path) -> list[str]:
    """Write a grid for the tiny models; return the options that make it take seconds."""
    text = (FOLDER / f"{name}.yaml").read_text()
    for large, little in (
        ("[4, 8, 16, 32, 64]", "[2, 4]"),
        ("[4, 16, 64]", "[2, 4]"),
        ("rank: 64}", "rank: 4}"),
        ("rank: 64\n", "rank: 4\n    blocks: 4\n"),
        ("min_rank: 32", "min_rank: 2"),
        ("min_rank: 16", "min_rank: 1"),
        ("blocks: 64", "blocks: 4"),
    ):
        text = text.replace(large, little)
    (folder / "grid.yaml").write_text(text)
    (folder / "prompts.json").write_text('["a V* in the snow", "a blue V*"]')  # in place of 31
    values: dict[str, Any] = {
        "base": tiny,
        "train.steps": 2,
        "train.resolution": 64,
        "train.precision": "fp32",
        "train.device": "cpu",
        "sampling.steps": 1,
        "evaluate.metrics": "[clip=toy-clip]",
        "evaluate.mask": "none",
        "evaluate.prompts": "prompts.json",
        "evaluate.count": 1,
        "evaluate.base_count": 1,
        "evaluate.batch_size": 16,
    }
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


@pytest.mark.full
@pytest.mark.parametrize("name", GRIDS)
def test_each_runs_from_end_to_end(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    tiny = request.getfixturevalue("tiny_flux" if name == "table5" else "tiny_sdxl")
    options = small(name, tiny, tmp_path)
    done = tlora("compare", tmp_path / "grid.yaml", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "runs" / "paper" / name
    with (out / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(1 for _ in out.glob("cells/*/result.json")) >= 2
    assert all(float(row["clip TS (class)"]) for row in rows)
    if name in ("table2", "table4"):  # whose arms keep their names on the tiny models
        assert "Beside the published figures" in (out / "index.html").read_text()
    if name == "figure4":
        files = [str(path) for path in sorted(out.glob("cells/*/run/adapter.safetensors"))]
        given = [w for n, file in enumerate(files) for w in ("--adapter", f"a{n}={file}")]
        done = tlora("analyze", *given, "--output", tmp_path / "spectra")
        assert done.returncode == 0 and "update, trained" in done.stdout
