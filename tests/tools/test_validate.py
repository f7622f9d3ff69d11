"""`tlora validate`: what would go wrong is told before, all at once, and what is right passes."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training_runs import run, write_recipe
from validations import contents, recipe, told, validate

from tlora_cli.foundation.files import locked
from tlora_cli.recipe.models import Recipe
from tlora_cli.tools.preflight import fitting, machine_checks
from tlora_cli.tools.preflight.findings import gigabytes
from tlora_cli.tools.preflight.fitting import Room, look_at_memory, plan_for, thriftier
from tlora_cli.tools.preflight.memory import MemoryPlan

# --- the command ------------------------------------------------------------------------------


def test_a_recipe_that_is_right(
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = write_recipe(tiny_sdxl, tmp_path)
    before = contents(tmp_path)
    assert validate(monkeypatch, file) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == f"next: tlora train --config {file}"
    assert "problem" not in printed.replace("no problems", "")
    for about in ("recipe", "pictures", "base", "libraries", "device", "output", "disk", "memory"):
        assert f"\nok       {about} " in f"\n{printed}"
    assert "training: " in printed and "activations and gradients" in printed
    assert contents(tmp_path) == before


def test_all_that_is_wrong_is_told_at_once(
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run").write_text("a file where the run should go")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    images = [str(tmp_path / "photo.png"), str(tmp_path / "none.png"), str(tmp_path / "broken.png")]
    file = write_recipe(
        tiny_sdxl, tmp_path, concept__images=images, train__optimizer__name="adamw8bit",
        train__device="auto", train__execution="cuda_graph", adapter__rnk=4, base="no/model/here",
    )  # fmt: skip
    assert validate(monkeypatch, file) == 2
    printed = capsys.readouterr().out
    for text in (
        "unknown key; did you mean `adapter.rank`?",
        "there is no file '" + images[1],
        f"{images[2]} can't be read: it is damaged",
        "base not found: no/model/here",
        "adamw8bit needs a CUDA GPU",
        "a CUDA graph needs a CUDA GPU",
        f"{tmp_path / 'run'} is a file",
    ):
        assert text in printed, text
    assert "7 problems" in printed.splitlines()[-1]
    assert "next:" not in printed


def test_what_hangs_on_a_wrong_value_is_not_judged(
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The default that stands in for a wrong value is nobody's wish."""
    file = write_recipe(tiny_sdxl, tmp_path, concept__images=7, train__steps="many")
    assert validate(monkeypatch, file) == 2
    printed = capsys.readouterr().out
    assert "concept.images: must be a path" in printed and "train.steps: must be" in printed
    assert "2 problems" in printed.splitlines()[-1]
    assert "pictures         not looked at" in printed and "memory           not looked" in printed
    assert "ok       base" in printed


def test_a_recipe_for_another_machine(
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = write_recipe(tiny_sdxl, tmp_path, train__quantization="nf4", train__device="auto")
    assert validate(monkeypatch, file) == 3
    assert "problem  device           quantization nf4 needs a CUDA GPU" in capsys.readouterr().out
    assert validate(monkeypatch, file, "--card", "12gb") == 0
    printed = capsys.readouterr().out
    assert "warning  device           on this machine: quantization nf4 needs" in printed
    assert "of 12.9 GB (the card of --card, 5% left to screens" in printed
    assert validate(monkeypatch, file, "--card", "12gb", "--deep") == 2


# --- memory, disk, output, device -------------------------------------------------------------


def test_memory_that_does_not_suffice_says_what_to_change(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = functools.cache(lambda text, room: plan_for(Recipe.model_validate_json(text), room))
    once = functools.partial(_plan_once, plan)
    monkeypatch.setattr(fitting, "plan_for", once)
    given = recipe(tiny_sdxl, tmp_path, train__batch_size=4, train__device="auto")
    rungs = list(thriftier(given))
    assert [settings for settings, _ in rungs] == [
        {"batch_size": 1},
        {"batch_size": 1, "gradient_checkpointing": True},
        {"batch_size": 1, "gradient_checkpointing": True, "quantization": "int8"},
        {"batch_size": 1, "gradient_checkpointing": True, "quantization": "nf4"},
        {
            "batch_size": 1,
            "gradient_checkpointing": True,
            "quantization": "nf4",
            "offload": True,
        },
    ]
    large = Room(40 * 2**30, "large")
    sizes = [once(given, large).card, *(once(tried, large).card for _, tried in rungs)]
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3] > sizes[4] > sizes[5]
    *phases, fine = look_at_memory(given, large)
    assert fine.level == "ok" and gigabytes(sizes[0]) in fine.text
    assert "(large, 5% left to screens and other programs)" in fine.text
    assert [one.text.partition(":")[0] for one in phases] == ["text", "encoding", "training"]
    # A card on which just the first two changes make it fit.
    [*_, found] = look_at_memory(given, Room(int(sizes[2] / 0.95) + 1, "small"))
    assert found.level == "problem"
    assert found.do == (
        "set train.batch_size: 1, train.gradient_checkpointing: true; it then takes "
        + gigabytes(sizes[2])
    )
    [*_, busy] = look_at_memory(given, Room(large.size, "large", used=large.size - 10**6))
    assert busy.level == "problem" and busy.do.startswith("close other programs")
    [*_, never] = look_at_memory(given, Room(2**20, "none"))
    assert never.do.startswith("train on a larger card")


def _plan_once(plan: Callable[[str, Room], MemoryPlan], given: Recipe, room: Room) -> MemoryPlan:
    return plan(given.model_dump_json(by_alias=True), Room(0, "any", is_card=room.is_card))


def test_a_full_disk(tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlora_cli.tools.preflight.memory import attach_planned, planned_denoiser

    given = recipe(tiny_sdxl, tmp_path)
    adapter = attach_planned(given, planned_denoiser(given))
    fine = machine_checks.look_at_disk(given, adapter)
    assert fine.level == "ok"
    monkeypatch.setattr(machine_checks, "free_space", lambda folder: 10_000)
    full = machine_checks.look_at_disk(given, adapter)
    assert full.level == "problem" and "but 0 MB are free" in full.text


def test_what_only_the_whole_run_needs(tiny_sdxl: Path, tmp_path: Path) -> None:
    """Encoders that score checkpoints, offline as all tests are; and a tracker's package."""
    given = recipe(tiny_sdxl, tmp_path, train__select="auto", output__trackers=["wandb"])
    assert "openai/clip-vit-base-patch32 and facebook/dino-vits16, which score" in told(
        machine_checks.look_at_encoders(given), "problem"
    )
    assert not list(machine_checks.look_at_encoders(recipe(tiny_sdxl, tmp_path)))
    if importlib.util.find_spec("wandb") is None:
        assert "wandb is not installed" in told(machine_checks.look_at_device(given), "problem")


def test_a_folder_that_is_taken(tiny_sdxl: Path, tmp_path: Path) -> None:
    given = recipe(tiny_sdxl, tmp_path)
    assert told(machine_checks.look_at_output(given), "ok") == f"{tmp_path / 'run'} can be written"
    with locked(tmp_path / "run"):
        assert "another tlora run" in told(machine_checks.look_at_output(given), "problem")
    run(tiny_sdxl, tmp_path, train__steps=1)
    assert "already holds a run" in told(machine_checks.look_at_output(given), "problem")
    nowhere = recipe(tiny_sdxl, tmp_path, output__dir="/proc/none/run")
    assert "/proc can't be written" in told(machine_checks.look_at_output(nowhere), "problem")
