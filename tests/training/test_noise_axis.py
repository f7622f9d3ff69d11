"""Training, resuming, sampling and reporting with `adapter.schedule.axis: logsnr`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_reports import make_run, records, report
from training_runs import draw_picture, recipe_values, run, same_tensors

from tlora_cli import RankSchedule
from tlora_cli.families import FAMILIES
from tlora_cli.formats import read_adapter
from tlora_cli.foundation.bundled import model_folder
from tlora_cli.foundation.pictures import picture_settings
from tlora_cli.recipe.models import Recipe

Cli = Callable[..., tuple[int, str, str]]
BY_NOISE = {"rank": 8, "min_rank": 2, "schedule": {"axis": "logsnr"}}
SDXL = FAMILIES["sdxl"]


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_left_out_it_is_the_timestep(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(recipe_values(Path("tiny-sdxl"), tmp_path))
    assert recipe.adapter.schedule.axis == "timestep"


def test_a_run_has_the_ranks_of_its_noise_and_resumes_bit_for_bit(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    whole = run(tiny_sdxl, tmp_path / "whole", adapter=BY_NOISE)
    run(tiny_sdxl, tmp_path / "cut", adapter=BY_NOISE, train__steps=4)
    cut = run(tiny_sdxl, tmp_path / "cut", resume=True, adapter=BY_NOISE)
    assert whole.adapter and cut.adapter
    assert same_tensors(whole.adapter, cut.adapter)
    schedule = read_adapter(whole.adapter, []).schedule
    assert schedule is not None
    config = json.loads((tiny_sdxl / "scheduler" / "scheduler_config.json").read_text())
    assert schedule == RankSchedule(8, 2, axis=SDXL.noise_axis(config))
    found = [(int(one["timestep"]), one["active_rank"]) for one in metrics(tmp_path / "whole")]
    assert found == [(t, schedule.active_rank(t)) for t, _ in found]
    assert [(int(o["timestep"]), o["active_rank"]) for o in metrics(tmp_path / "cut")] == found


def test_on_flux_the_run_is_that_by_timestep(tiny_flux: Path, tmp_path: Path) -> None:
    by_time = {**BY_NOISE, "schedule": {"axis": "timestep"}}
    one = run(tiny_flux, tmp_path / "noise", adapter=BY_NOISE, train__steps=3)
    other = run(tiny_flux, tmp_path / "time", adapter=by_time, train__steps=3)
    assert one.adapter and other.adapter
    assert same_tensors(one.adapter, other.adapter)


def test_toy_sdxl_trains_samples_reports_and_publishes(cli: Cli, tmp_path: Path) -> None:
    """It has zero terminal SNR and predicts v; sampling starts at noise alone."""
    draw_picture(tmp_path / "photo.png")
    values = recipe_values(Path("tiny-sdxl"), tmp_path, adapter=BY_NOISE, train__steps=3)
    values |= {"base": "toy-sdxl"}
    (tmp_path / "recipe.yaml").write_text(json.dumps(values))
    assert cli("train", "--config", tmp_path / "recipe.yaml")[0] == 0
    adapter = tmp_path / "run" / "adapter.safetensors"
    schedule = read_adapter(adapter, []).schedule
    assert schedule is not None and schedule.axis is not None
    assert schedule.axis.signal[-1] == 0, "the noise schedule of toy-sdxl, not the published one"
    pictures = tmp_path / "pictures"
    arguments = ("--adapter", adapter, "--prompt", "a V*", "--steps", 3, "--device", "cpu")
    status, _, told = cli("sample", *arguments, "--output", pictures)
    assert status == 0, told
    [picture] = pictures.glob("*.png")
    assert picture_settings(picture)["schedule"] == "linear by noise level"
    _, tables = report(cli, tmp_path / "run")
    ranks = schedule.active_rank(torch.arange(1000)).tolist()
    for rank in set(ranks):
        own = [t for t, one in enumerate(ranks) if one == rank]
        assert tables.row(str(rank))[0] == f"{own[0]} to {own[-1]}"
    out = tmp_path / "published"
    status, _, told = cli(
        "publish", tmp_path / "run", "--output", out, "--base", SDXL.standard_base
    )
    assert status == 0, told
    card = (out / "README.md").read_text()
    assert "by noise level: t is `T (1 - sigmoid(logsnr / 1.533 + 0.652))`" in card
    times = (0, 250, 500, 750, 999)
    assert f"| active rank | {' | '.join(str(ranks[t]) for t in times)} |" in card
    config = json.loads((model_folder("toy-sdxl") / "scheduler/scheduler_config.json").read_text())
    assert schedule.axis == SDXL.noise_axis(config)


def test_a_report_before_the_first_file_says_whose_noise_levels_it_shows(
    cli: Cli, tmp_path: Path
) -> None:
    folder = make_run(tmp_path, records(20), adapter=BY_NOISE)
    draw_picture(tmp_path / "photo.png")
    page, tables = report(cli, folder)
    assert "linear by noise level" in page
    assert "the ranks are shown for those of SDXL" in page
    schedule = RankSchedule(8, 2, axis=SDXL.noise_axis(SDXL.standard_scheduler))
    least = int(schedule.active_rank(999))
    assert tables.row(str(least))[0].endswith(" to 999")


@pytest.mark.parametrize("value", ["sigma", 1])
def test_another_axis_is_refused(value: Any, cli: Cli, tmp_path: Path) -> None:
    adapter = {"schedule": {"axis": value}}
    values = recipe_values(Path("tiny-sdxl"), tmp_path, adapter=adapter)
    (tmp_path / "recipe.yaml").write_text(json.dumps(values))
    status, _, told = cli("train", "--config", tmp_path / "recipe.yaml")
    assert status == 2
    assert "adapter.schedule.axis: must be one of timestep, logsnr" in told
