"""What a recipe asks of its base against what the base's files say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from single_file import write_sdxl
from validations import recipe, told, validate

from tlora_cli.tools.preflight.base_choices import look_at_choices

SCHEDULER = "scheduler/scheduler_config.json"


def base(tiny: Path, target: Path, **values: Any) -> str:
    shutil.copytree(tiny, target)
    found = json.loads((target / SCHEDULER).read_text())
    (target / SCHEDULER).write_text(json.dumps({**found, **values}))
    return str(target)


@pytest.mark.parametrize(
    ("said", "wanted", "warned"),
    [
        ("epsilon", "auto", False),
        ("epsilon", "epsilon", False),
        ("epsilon", "v_prediction", True),
        ("v_prediction", "epsilon", True),
    ],
)
def test_another_objective_than_the_base_says(
    said: str, wanted: str, warned: bool, tiny_sdxl: Path, tmp_path: Path
) -> None:
    there = base(tiny_sdxl, tmp_path / "b", prediction_type=said)
    found = list(look_at_choices(recipe(tiny_sdxl, tmp_path, base=there, train__objective=wanted)))
    assert bool(found) == warned
    if warned:
        assert f"predicts {said}, but train.objective is {wanted}" in told(found, "warning")


def test_a_sampler_that_can_not_draw_with_the_base(tiny_sdxl: Path, tmp_path: Path) -> None:
    """As a single file says by its mark; without the check the first preview would end the run."""
    file = tmp_path / "base.safetensors"
    write_sdxl(tiny_sdxl, file)
    marks = {name: torch.tensor([]) for name in ("v_pred", "ztsnr")}
    save_file(load_file(file) | marks, file)
    place = {"model": str(file), "config": str(tiny_sdxl)}
    for sampler in ("euler", "heun"):
        asked = recipe(tiny_sdxl, tmp_path, base=place, sampling__scheduler=sampler)
        found = list(look_at_choices(asked))
        assert ("sampler heun can't draw" in told(found, "problem")) == (sampler == "heun")


def test_validate_tells_of_it(
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from training_runs import write_recipe

    there = base(tiny_sdxl, tmp_path / "b", prediction_type="v_prediction")
    written = write_recipe(tiny_sdxl, tmp_path / "t", base=there, train__objective="epsilon")
    validate(monkeypatch, written)
    assert "the base's files say that it predicts v_prediction" in capsys.readouterr().out
