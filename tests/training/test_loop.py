"""Training runs on the tiny models: results, resuming, interruption, refusal to overwrite."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fork_server import Call
from PIL import Image
from safetensors.torch import load_file
from training_runs import (
    draw_picture,
    moved,
    recipe_values,
    run,
    run_python,
    same_tensors,
    start_tlora,
    tlora,
    write_recipe,
)

from tlora_cli import RankSchedule, UserError
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.reading import load_recipe
from tlora_cli.training import loop, previews, step
from tlora_cli.training.state import checkpoints

PRODIGY: dict[str, Any] = {
    "train__optimizer": {"name": "prodigy"},
    "train__accumulation": 2,
    "train__max_grad_norm": 1.0,
    "train__lr_schedule": {"name": "cosine", "warmup_steps": 2},
}


@pytest.fixture
def base(request: pytest.FixtureRequest) -> Path:
    """Return the tiny model that the test is parametrized with; SDXL by default."""
    return request.getfixturevalue(getattr(request, "param", "tiny_sdxl"))


@pytest.fixture(scope="module")
def finished(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with the settings of `recipe_values`; do not write to it."""
    folder = tmp_path_factory.mktemp("finished")
    assert run(tiny_sdxl, folder).adapter
    return folder


@pytest.fixture(scope="module")
def whole(finished: Path) -> Path:
    """Return the adapter of that run."""
    return finished / "run" / "adapter.safetensors"


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("base", "method"),
    [
        ("tiny_sdxl", "tlora"),
        ("tiny_flux", "vanilla_tlora"),
        ("tiny_sdxl", "lora"),
        pytest.param("tiny_sdxl", "vanilla_tlora", marks=pytest.mark.full),
        pytest.param("tiny_sdxl", "ortho_lora", marks=pytest.mark.full),
        pytest.param("tiny_flux", "lora", marks=pytest.mark.full),
        pytest.param("tiny_flux", "ortho_lora", marks=pytest.mark.full),
        pytest.param("tiny_flux", "tlora", marks=pytest.mark.full),
    ],
    indirect=["base"],
)
def test_every_method_trains(base: Path, method: str, tmp_path: Path) -> None:
    masked = method in ("vanilla_tlora", "tlora")
    adapter = {"method": method, "rank": 4, **({"min_rank": 1} if masked else {})}
    outcome = run(base, tmp_path, adapter=adapter)
    assert outcome.adapter is not None
    assert moved(outcome.adapter)
    schedule = RankSchedule(4, 1) if masked else RankSchedule(4, 4)
    records = metrics(tmp_path)
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 6]
    assert [r["active_rank"] for r in records] == [
        schedule.active_rank(r["timestep"]) for r in records
    ]
    assert len({r["timestep"] for r in records}) > 3
    names = [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")]
    assert names == ["checkpoint-000004", "checkpoint-000006"]
    assert load_recipe(tmp_path / "run" / "recipe.yaml").adapter.method == method


def test_training_lowers_the_loss(tiny_sdxl: Path, tmp_path: Path) -> None:
    """The loss of the trained model, at the steps it saw, is below that of the start."""
    settings: dict[str, Any] = {
        "train__steps": 60,
        "train__checkpoint": {"every": 60, "keep": 1},
        "train__optimizer": {"name": "adamw", "lr": 1e-2},
        "train__timesteps": {"low": 400, "high": 500},
    }
    run(tiny_sdxl, tmp_path, **settings)
    losses = [record["loss"] for record in metrics(tmp_path)]
    assert np.mean(losses[-20:]) < 0.97 * np.mean(losses[:20])


VARIANTS: dict[str, dict[str, Any]] = {
    "bf16": {"train__precision": "bf16"},
    "batch": {"train__batch_size": 3},
    "logit_normal": {"train__timesteps": {"distribution": "logit_normal", "low": 500}},
    "v_prediction": {"train__objective": "v_prediction"},
    "random_schedule": {"adapter__schedule": {"kind": "random"}},
    "points": {"adapter__schedule": {"kind": "piecewise", "points": [[0, 4], [900, 2]]}},
    "weights_start": {"adapter__init": "weights_principal"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_train(tiny_sdxl: Path, variant: str, tmp_path: Path) -> None:
    outcome = run(tiny_sdxl, tmp_path, train__steps=3, **VARIANTS[variant])
    assert outcome.adapter is not None
    assert moved(outcome.adapter)


def test_checkpointing_gives_the_same_weights(tiny_sdxl: Path, whole: Path, tmp_path: Path) -> None:
    checked = run(tiny_sdxl, tmp_path, train__gradient_checkpointing=True)
    assert checked.adapter
    a, b = load_file(whole), load_file(checked.adapter)
    assert all(torch.allclose(a[k], b[k], atol=1e-5) for k in a)


def test_interval_of_timesteps(tiny_sdxl: Path, tmp_path: Path) -> None:
    run(tiny_sdxl, tmp_path, train__timesteps={"low": 800, "high": 1000})
    assert all(800 <= r["timestep"] < 1000 for r in metrics(tmp_path))


def test_several_pictures_and_masks(tiny_sdxl: Path, tmp_path: Path) -> None:
    pictures, masks = tmp_path / "pictures", tmp_path / "masks"
    pictures.mkdir()
    masks.mkdir()
    for n in range(3):
        draw_picture(pictures / f"{n}.png", seed=n)
        white = np.zeros((96, 96), np.uint8)
        white[20:70, 20:70] = 255
        Image.fromarray(white).save(masks / f"{n}.png")
    concept = {"images": str(pictures), "class": "dog"}
    plain = run(tiny_sdxl, tmp_path / "a", concept=concept)
    masked = run(tiny_sdxl, tmp_path / "b", concept={**concept, "masks": str(masks)})
    assert plain.adapter and masked.adapter
    assert moved(masked.adapter)
    assert not same_tensors(plain.adapter, masked.adapter)


def test_prior_preservation(tiny_sdxl: Path, tmp_path: Path) -> None:
    """Class pictures are drawn by the base, counted into the loss, and drawn only once."""
    picture = draw_picture(tmp_path / "photo.png")
    concept = {"images": str(picture), "class": "dog"}
    plain = run(tiny_sdxl, tmp_path / "a", concept=concept)
    with_prior = {**concept, "prior": {"count": 2, "weight": 0.5}}
    kept = run(tiny_sdxl, tmp_path / "b", concept=with_prior)
    assert plain.adapter and kept.adapter
    assert not same_tensors(plain.adapter, kept.adapter)
    drawn = sorted((tmp_path / "b" / "run" / "class_pictures").glob("*/*.png"))
    assert len(drawn) == 2
    before = [path.read_bytes() for path in drawn]
    run(tiny_sdxl, tmp_path / "b", resume=True, concept=with_prior, train__steps=8)
    assert [path.read_bytes() for path in drawn] == before
    given = {**concept, "prior": {"count": 2, "images": str(drawn[0].parent)}}
    run(tiny_sdxl, tmp_path / "c", concept=given)
    assert not (tmp_path / "c" / "run" / "class_pictures").exists()


def test_tensorboard_events(tiny_sdxl: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tiny_sdxl, tmp_path, output__trackers=["tensorboard"])
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses == pytest.approx([r["loss"] for r in metrics(tmp_path)], rel=1e-6)


# --- nothing lost -------------------------------------------------------------------------------

KILLED = """
import os, signal
from pathlib import Path
from tlora_cli.training import loop
where, when = {where!r}, {when}
original = getattr(loop.TrainingLoop, where)
count = 0
def killed(self, *arguments, **options):
    global count
    count += 1
    if count == when:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *arguments, **options)
setattr(loop.TrainingLoop, where, killed)
from tlora_cli.recipe.reading import load_recipe
loop.train(load_recipe(Path({recipe!r})))
"""


def train_and_kill(recipe: Path, where: str, when: int) -> None:
    """Start a run in a process of its own that kills itself at a call of a method of the loop."""
    done = run_python(KILLED.format(where=where, when=when, recipe=str(recipe)))
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    ("base", "changes", "when"),
    [
        pytest.param("tiny_sdxl", {}, 4, id="sdxl"),
        pytest.param(
            "tiny_sdxl", PRODIGY, 6, id="sdxl-prodigy-accumulation", marks=pytest.mark.full
        ),
        pytest.param("tiny_flux", PRODIGY, 2, id="flux-prodigy-before-any-checkpoint"),
    ],
    indirect=["base"],
)
def test_a_killed_run_resumes_to_the_same_bits(
    base: Path, changes: dict[str, Any], when: int, tmp_path: Path
) -> None:
    whole = run(base, tmp_path / "whole", **changes)
    train_and_kill(write_recipe(base, tmp_path / "killed", **changes), "_step", when)
    folder = tmp_path / "killed" / "run"
    assert not (folder / "adapter.safetensors").exists()
    resumed = run(base, tmp_path / "killed", resume=True, **changes)
    assert whole.adapter and resumed.adapter
    assert same_tensors(whole.adapter, resumed.adapter)

    def without_time(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in r.items() if k not in ("seconds", "memory_gb")} for r in records]

    whole_metrics, resumed_metrics = metrics(tmp_path / "whole"), metrics(tmp_path / "killed")
    assert without_time(resumed_metrics) == without_time(whole_metrics)


def test_a_run_killed_while_saving_keeps_the_checkpoint_before(
    tiny_sdxl: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power fails between writing a checkpoint's files and renaming its folder."""

    class PowerCut(BaseException):
        pass

    saves = 0
    real = torch.save

    def cut(*arguments: Any, **options: Any) -> None:
        nonlocal saves
        saves += 1
        real(*arguments, **options)
        if saves == 2:
            raise PowerCut

    monkeypatch.setattr(torch, "save", cut)
    monkeypatch.setattr(shutil, "rmtree", lambda *a, **k: None)  # nothing is tidied in a power cut
    with pytest.raises(PowerCut):
        run(tiny_sdxl, tmp_path / "cut")
    monkeypatch.undo()
    folder = tmp_path / "cut" / "run" / "checkpoints"
    assert [p.name for p in checkpoints(folder)] == ["checkpoint-000002"]
    assert any(p.name.startswith(".tlora-unfinished-") for p in folder.iterdir())
    resumed = run(tiny_sdxl, tmp_path / "cut", resume=True)
    assert resumed.adapter
    assert same_tensors(whole, resumed.adapter)
    assert not any(p.name.startswith(".tlora-unfinished-") for p in folder.iterdir())


def test_a_damaged_checkpoint_is_passed_over(tiny_sdxl: Path, tmp_path: Path) -> None:
    whole = run(tiny_sdxl, tmp_path / "whole", train__steps=8)
    run(tiny_sdxl, tmp_path / "hurt")
    hurt = tmp_path / "hurt" / "run" / "checkpoints" / "checkpoint-000006" / "training_state.pt"
    hurt.write_bytes(hurt.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="checkpoint-000006 can't be loaded"):
        resumed = run(tiny_sdxl, tmp_path / "hurt", resume=True, train__steps=8)
    assert whole.adapter and resumed.adapter
    assert same_tensors(whole.adapter, resumed.adapter)
    # What is damaged neither counts as a checkpoint nor stands in the way of a new one.
    names = sorted(path.name for path in hurt.parent.parent.iterdir())
    assert names == [
        "checkpoint-000006",
        "checkpoint-000008",
        "damaged-checkpoint-000006",
        "start.safetensors",
    ]
    assert load_again(tmp_path / "hurt" / "run")


def load_again(folder: Path) -> bool:
    """Whether every checkpoint of a run can be read."""
    for path in checkpoints(folder / "checkpoints"):
        torch.load(path / "training_state.pt", weights_only=True)
    return True


@pytest.mark.parametrize("step", [0, 2])
def test_an_interruption_while_previews_are_drawn_still_saves(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    settings: dict[str, Any] = {
        "train__checkpoint": {"every": 100, "keep": 1},
        "train__preview": {"every": 2, "prompts": ["a V*", "V* at night"]},
    }
    whole = run(tiny_sdxl, tmp_path / "whole", **settings)
    real = previews.save_picture

    def interrupts(*arguments: Any) -> Path:
        if arguments[-1]["train_steps"] == step:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(previews, "save_picture", interrupts)
    stopped = run(tiny_sdxl, tmp_path / "stopped", **settings)
    monkeypatch.undo()
    folder = tmp_path / "stopped" / "run"
    assert (stopped.adapter, stopped.step) == (None, step)
    assert [p.name for p in checkpoints(folder / "checkpoints")] == [f"checkpoint-{step:06d}"]
    assert not (folder / "previews" / f"step-{step:06d}").exists()
    resumed = run(tiny_sdxl, tmp_path / "stopped", resume=True, **settings)
    assert whole.adapter and resumed.adapter
    assert same_tensors(whole.adapter, resumed.adapter)
    expected = sorted(p.relative_to(tmp_path / "whole") for p in pictures(tmp_path / "whole"))
    got = sorted(p.relative_to(tmp_path / "stopped") for p in pictures(tmp_path / "stopped"))
    assert got == expected
    for path in expected:  # the previews of that step were drawn after all
        a, b = (np.asarray(Image.open(tmp_path / name / path)) for name in ("whole", "stopped"))
        assert np.array_equal(a, b)


def pictures(folder: Path) -> list[Path]:
    return sorted((folder / "run" / "previews").rglob("*.png"))


def test_a_start_that_failed_leaves_the_folder_free(tiny_sdxl: Path, tmp_path: Path) -> None:
    concept = {"images": str(tmp_path / "missing.png"), "class": "dog"}
    for changes in ({"concept": concept}, {"adapter": {"rank": 1000, "min_rank": 2}}):
        with pytest.raises(UserError):
            run(tiny_sdxl, tmp_path, **changes)
    outcome = run(tiny_sdxl, tmp_path)
    assert outcome.adapter


def test_an_adapter_without_checkpoints_is_not_trained_over(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    outcome = run(tiny_sdxl, tmp_path)
    assert outcome.adapter
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="a finished adapter but no checkpoint"):
        run(tiny_sdxl, tmp_path, resume=True)
    after = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert after == before


def test_files_of_others_in_the_folder_stay(tiny_sdxl: Path, tmp_path: Path) -> None:
    mine = tmp_path / "run" / ".tmp-mine"
    mine.mkdir(parents=True)
    (mine / "x").write_text("precious")
    assert run(tiny_sdxl, tmp_path).adapter
    assert (mine / "x").read_text() == "precious"


def test_a_picture_that_changed_is_noticed_on_resume(tiny_sdxl: Path, tmp_path: Path) -> None:
    run(tiny_sdxl, tmp_path, train__steps=4)
    draw_picture(tmp_path / "photo.png", seed=5)
    with pytest.raises(UserError, match="pictures, masks or captions have changed"):
        run(tiny_sdxl, tmp_path, resume=True, train__steps=8)
    draw_picture(tmp_path / "photo.png")
    assert run(tiny_sdxl, tmp_path, resume=True, train__steps=8).step == 8


def test_two_runs_in_one_process_may_differ_in_precision(tiny_sdxl: Path, tmp_path: Path) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    Accelerator(mixed_precision="bf16", cpu=True)  # somebody else's, of another kind
    assert run(tiny_sdxl, tmp_path / "a").adapter
    assert run(tiny_sdxl, tmp_path / "b", train__precision="bf16").adapter


def test_out_of_memory_says_what_to_change(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(step, "sample_losses", fails)
    with pytest.raises(UserError) as caught:
        run(tiny_sdxl, tmp_path)
    assert "the GPU ran out of memory" in str(caught.value)
    assert "gradient_checkpointing: true" in str(caught.value)


@pytest.mark.full
def test_an_explicit_objective_reaches_the_sampler(tiny_sdxl: Path, tmp_path: Path) -> None:
    """Previews of a v-prediction run on an epsilon base are drawn as v; so are samples."""
    settings: dict[str, Any] = {
        "train__preview": {"every": 6, "prompts": ["a V*"]},
        "train__optimizer": {"name": "adamw", "lr": 1e-6},
    }
    epsilon = run(tiny_sdxl, tmp_path / "epsilon", **settings)
    run(tiny_sdxl, tmp_path / "v", train__objective="v_prediction", **settings)
    assert epsilon.adapter
    (_, a), (_, b) = pictures(tmp_path / "epsilon"), pictures(tmp_path / "v")  # of step 0, too
    assert not np.array_equal(np.asarray(Image.open(a)), np.asarray(Image.open(b)))
    out = tmp_path / "out"
    adapter = tmp_path / "v" / "run" / "adapter.safetensors"
    done = tlora("sample", "--adapter", adapter, "--prompt", "a V*", "--output", out)
    assert done.returncode == 0, done.stderr
    [picture] = list(out.iterdir())
    assert np.array_equal(np.asarray(Image.open(picture)), np.asarray(Image.open(b)))


@pytest.mark.full
def test_odd_folder_names(tiny_sdxl: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tiny_sdxl, tmp_path, train__steps=1)
    for name in ("run #2", "2024", "a: b"):
        done = tlora("train", "--config", recipe, "--output", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name / "adapter.safetensors").exists()


def start(recipe: Path) -> Call:
    """Start `tlora train` and wait until some steps are done."""
    call = start_tlora("train", "--config", recipe)
    record = recipe.parent / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (record.exists() and record.read_text().count("\n") >= 3):
        assert call.works(), call.ended(0)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return call


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGHUP,
        *(pytest.param(one, marks=pytest.mark.full) for one in (signal.SIGINT, signal.SIGTERM)),
    ],
)
def test_an_interrupted_run_saves_says_how_to_go_on_and_resumes_to_the_same_bits(
    tiny_sdxl: Path, tmp_path: Path, number: signal.Signals
) -> None:
    settings: dict[str, Any] = {
        "train__steps": 120,
        "train__checkpoint": {"every": 1000, "keep": 1},
    }
    call = start(write_recipe(tiny_sdxl, tmp_path / "stopped", **settings))
    call.send_signal(number)
    done = call.ended(120)
    folder = tmp_path / "stopped" / "run"
    assert done.returncode == 128 + number, done.stderr
    assert "stopping after this step and saving" in done.stderr
    assert f"tlora train --resume --output {folder}" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    [kept] = checkpoints(folder / "checkpoints")
    step = int(kept.name.split("-")[1])
    assert 3 <= step < 120
    again = tlora("train", "--resume", "--output", folder)
    assert again.returncode == 0, again.stderr
    assert f"resuming after step {step} of 120" in again.stderr
    whole = run(tiny_sdxl, tmp_path / "whole", **settings)
    assert whole.adapter
    # One thread or two sum in another order; the bits agree because the environment sets one.
    assert same_tensors(whole.adapter, folder / "adapter.safetensors")


def test_the_second_interruption_stops_at_once(tiny_sdxl: Path, tmp_path: Path) -> None:
    """Deliver both signals before the step can end."""
    recipe = Recipe.model_validate(recipe_values(tiny_sdxl, tmp_path))
    original = loop.TrainingLoop._step
    before = signal.getsignal(signal.SIGINT)

    def impatient(self: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        original(self)

    loop.TrainingLoop._step = impatient  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.train(recipe)
    finally:
        loop.TrainingLoop._step = original  # type: ignore[method-assign]
    assert signal.getsignal(signal.SIGINT) is before
    assert metrics(tmp_path) == []


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = step.sample_losses, 0

    def explodes(*arguments: Any, **options: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return real(*arguments, **options) * (float("nan") if calls == 4 else 1.0)

    monkeypatch.setattr(step, "sample_losses", explodes)
    with pytest.raises(UserError) as caught:
        run(tiny_sdxl, tmp_path)
    assert "the loss of step 4 is nan" in str(caught.value)
    assert "checkpoint-000002" in str(caught.value)
    folder = tmp_path / "run" / "checkpoints"
    assert [p.name for p in checkpoints(folder)] == ["checkpoint-000002"]
    assert [r["step"] for r in metrics(tmp_path)] == [1, 2, 3]


def test_a_finished_run_is_not_trained_again(
    tiny_sdxl: Path, finished: Path, whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stamp = whole.stat().st_mtime_ns
    again = run(tiny_sdxl, finished, resume=True)
    assert again.adapter == whole
    assert whole.stat().st_mtime_ns == stamp
    assert "already complete" in capfd.readouterr().err


def test_a_finished_run_can_go_on_for_more_steps(tiny_sdxl: Path, tmp_path: Path) -> None:
    whole = run(tiny_sdxl, tmp_path / "whole", train__steps=9)
    run(tiny_sdxl, tmp_path / "more", train__steps=5)
    more = run(tiny_sdxl, tmp_path / "more", resume=True, train__steps=9)
    assert whole.adapter and more.adapter
    assert same_tensors(whole.adapter, more.adapter)


def test_a_folder_with_another_run_is_refused(tiny_sdxl: Path, finished: Path) -> None:
    before = {p: p.read_bytes() for p in (finished / "run").rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="already holds a run"):
        run(tiny_sdxl, finished)
    with pytest.raises(UserError) as caught:
        run(tiny_sdxl, finished, resume=True, train__seed=7, adapter__rank=8)
    assert "adapter.rank: was 4, is 8" in str(caught.value)
    assert "train.seed: was 0, is 7" in str(caught.value)
    after = {p: p.read_bytes() for p in (finished / "run").rglob("*") if p.is_file()}
    assert after == before


def test_two_runs_in_one_folder_are_refused(tiny_sdxl: Path, tmp_path: Path) -> None:
    call = start(write_recipe(tiny_sdxl, tmp_path, train__steps=2000))
    try:
        with pytest.raises(UserError, match="another tlora run is working in this folder"):
            run(tiny_sdxl, tmp_path, resume=True, train__steps=2000)
    finally:
        call.send_signal(signal.SIGKILL)
        call.ended(60)
