"""The average of the weights: its numbers, where it is used, and that it resumes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from meta_runs import meta_run
from PIL import Image
from torch import Tensor
from training_runs import (
    named,
    recipe_values,
    run,
    same_adapter,
    same_tensors,
    tlora,
    trained_in,
    write_recipe,
)

from tlora_cli import UserError, attach
from tlora_cli.comparison.tasks import Task
from tlora_cli.formats import read_adapter
from tlora_cli.methods import METHODS
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.generate import generate
from tlora_cli.sampling.session import Request
from tlora_cli.tools.preflight.memory import plan_memory
from tlora_cli.training import average
from tlora_cli.training.average import Average
from tlora_cli.training.disk_space import disk_space

PROMPT = "a photo of a V*"
Values = dict[str, Tensor]


def settings(method: str, **more: Any) -> dict[str, Any]:
    size = {"rank": {"rank": 4}, "blocks": {"blocks": 2}, "none": {}}[METHODS[method].size]
    return {
        "adapter": {"method": method, **size},
        "concept__prior": None,
        "train__ema": {"decay": 0.4},
        "train__optimizer": {"name": "adamw", "lr": 1e-2},
        "train__preview": {"every": 6, "prompts": [PROMPT]},
        **more,
    }


def state_of(folder: Path, step: int = 6) -> dict[str, Any]:
    """Return what a checkpoint holds: `adapter` what is trained, and its `average`."""
    path = folder / "run" / "checkpoints" / f"checkpoint-{step:06d}"
    found: dict[str, Any] = torch.load(path / "training_state.pt", weights_only=True)
    shown = trained_in(path)
    if "weights" not in found:
        return {**found, "adapter": shown}
    weights = {named(key): tensor for key, tensor in found["weights"].items()}
    return {**found, "adapter": weights, "average": shown}


def small_adapter(method: str = "lora") -> Any:
    from small_denoisers import make_unet

    return attach(make_unet(), method, 4)


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.9, 0.5])
def test_it_is_the_weighted_sum_of_all_steps(decay: float) -> None:
    adapter = small_adapter()
    mean = Average(adapter, decay)
    seen: list[list[Tensor]] = [[p.detach().double() for p in adapter.parameters()]]
    torch.manual_seed(0)
    for step in range(1, 21):
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(torch.randn_like(parameter))
        mean.update(step)
        seen.append([p.detach().double() for p in adapter.parameters()])
    kept = [min(decay, (1 + n) / (10 + n)) for n in range(1, 21)]
    assert (max(kept) == decay) is (decay == 0.5), "both the warm-up and the decay are tried"
    shares = np.array([np.prod(kept), *((1 - kept[n]) * np.prod(kept[n + 1 :]) for n in range(20))])
    assert shares.sum() == pytest.approx(1)
    for place, own in enumerate(mean.tensors):
        expected = sum(share * one[place] for share, one in zip(shares, seen, strict=True))
        assert own.dtype == torch.float32
        torch.testing.assert_close(own.double(), expected, rtol=1e-5, atol=1e-5)


def test_weights_that_stand_still_are_their_own_average() -> None:
    adapter = small_adapter("tlora")  # an orthogonal start, of which a copy is subtracted
    before = [parameter.detach().clone() for parameter in adapter.parameters()]
    mean = Average(adapter, 0.99)
    for step in range(1, 30):
        mean.update(step)
    assert all(torch.equal(*pair) for pair in zip(before, mean.tensors, strict=True))


def test_only_inside_the_averages_are_the_adapters_tensors() -> None:
    adapter = small_adapter()
    own = [parameter.detach().clone() for parameter in adapter.parameters()]
    mean = Average(adapter, 0.5)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(1)
    places = [parameter.data_ptr() for parameter in adapter.parameters()]
    with pytest.raises(KeyError), mean.shown():
        assert all(torch.equal(*pair) for pair in zip(adapter.parameters(), own, strict=True))
        raise KeyError
    assert all(torch.equal(p, one + 1) for p, one in zip(adapter.parameters(), own, strict=True))
    assert places == [parameter.data_ptr() for parameter in adapter.parameters()]


def test_what_a_method_switches_off_is_off_in_the_average() -> None:
    adapter = small_adapter("adalora")
    mean = Average(adapter, 0.9)
    layers = list(adapter.layers.values())
    for step, present in enumerate(([1.0, -2.0, 3.0, 4.0], [0.0, -2.0, 0.0, 4.0]), start=1):
        with torch.no_grad():
            for layer in layers:
                layer.E.copy_(torch.tensor(present))
                layer.A.fill_(0)  # a zero there switches nothing
        mean.update(step)
    kept = mean.state_dict()
    for name in adapter.layers:
        expected = [0.0, -2.0 * (1 - 2 / 11 * 3 / 12), 0.0, 4.0 * (1 - 2 / 11 * 3 / 12)]
        assert kept[f"{name}.E"].tolist() == pytest.approx(expected)
        assert (kept[f"{name}.A"] != 0).all()


# --- runs -----------------------------------------------------------------------------------------


OF_EACH_KIND = ("tlora", "adalora", "oft", "textual_inversion")
"""Methods with a start beside, with what is switched off, without ranks, of words."""


@pytest.mark.parametrize(
    "method",
    [pytest.param(one, marks=() if one in OF_EACH_KIND else pytest.mark.full) for one in METHODS],
)
def test_files_and_previews_of_every_method_show_the_average_and_it_resumes(
    method: str, tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Values] = []
    real: Callable[[Average, int], None] = Average.update

    def recorded(self: Average, step: int) -> None:
        real(self, step)
        named = zip(self._names, self._trained, strict=True)
        steps.append({name: tensor.detach().double() for name, tensor in named})

    monkeypatch.setattr(average.Average, "update", recorded)
    outcome = run(tiny_sdxl, tmp_path, **settings(method))
    assert outcome.adapter
    saved, before = state_of(tmp_path), state_of(tmp_path, 4)["average"]
    for name, own in saved["average"].items():
        assert torch.equal(saved["adapter"][name].double(), steps[5][name])
        expected = 0.4 * (0.4 * before[name].double() + 0.6 * steps[4][name]) + 0.6 * steps[5][name]
        if name.rpartition(".")[2] in METHODS[method].switches:
            expected = expected * (steps[5][name] != 0)
        torch.testing.assert_close(own.double(), expected, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(saved["average"][k], saved["adapter"][k]) for k in saved["average"])

    preview = next((tmp_path / "run" / "previews" / "step-000006").glob("*.png"))
    request = Request(outcome.adapter, [PROMPT], tmp_path / "out", device="cpu")
    [drawn] = generate(request, lambda line: None)
    with Image.open(drawn) as one, Image.open(preview) as other:
        assert (np.asarray(one) == np.asarray(other)).all()

    whole = outcome.adapter.rename(tmp_path / "whole.safetensors")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "checkpoint-000006")
    again = run(tiny_sdxl, tmp_path, resume=True, **settings(method))
    assert again.adapter
    assert same_tensors(whole, again.adapter)
    resumed = state_of(tmp_path)["average"]
    assert all(torch.equal(one, resumed[name]) for name, one in saved["average"].items())
    if method == "adalora":
        pruned = [(down == 0).all(1) for down, _ in read_adapter(again.adapter, ()).layers.values()]
        assert torch.stack(pruned).any(), "nothing was pruned"


def test_training_is_the_same_and_the_file_holds_the_averaged_factors(
    tiny_flux: Path, tmp_path: Path
) -> None:
    run(tiny_flux, tmp_path / "without", **settings("lora", train__ema=None))
    outcome = run(tiny_flux, tmp_path / "with", **settings("lora"))
    assert outcome.adapter
    plain, averaged = state_of(tmp_path / "without"), state_of(tmp_path / "with")
    assert "average" not in plain
    assert all(torch.equal(one, averaged["adapter"][k]) for k, one in plain["adapter"].items())
    kept = averaged["average"]
    for name, (down, up) in read_adapter(outcome.adapter, ()).layers.items():
        product = kept[f"{name}.B"] @ kept[f"{name}.A"]
        torch.testing.assert_close(up @ down, product)
    checkpoint = tmp_path / "with" / "run" / "checkpoints" / "checkpoint-000006"
    assert same_adapter(outcome.adapter, checkpoint / "adapter.safetensors")


def test_it_can_not_come_or_go_in_the_midst_of_a_run(tiny_sdxl: Path, tmp_path: Path) -> None:
    run(tiny_sdxl, tmp_path, **settings("lora", train__steps=2))
    for ema, told in ((None, 'was {"decay": 0.4}, is null'), ({"decay": 0.9}, "was 0.4, is 0.9")):
        with pytest.raises(UserError, match="started with another recipe") as caught:
            run(tiny_sdxl, tmp_path, resume=True, **settings("lora", train__ema=ema))
        assert told in caught.value.what


def test_a_checkpoint_without_its_average_counts_as_damaged(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    outcome = run(tiny_sdxl, tmp_path, **settings("lora"))
    assert outcome.adapter
    whole = outcome.adapter.rename(tmp_path / "whole.safetensors")
    file = tmp_path / "run" / "checkpoints" / "checkpoint-000006" / "training_state.pt"
    saved = torch.load(file, weights_only=True)
    saved["weights"].popitem()
    torch.save(saved, file)
    with pytest.warns(UserWarning, match="trying the one before"):
        again = run(tiny_sdxl, tmp_path, resume=True, **settings("lora"))
    assert again.adapter
    assert same_tensors(whole, again.adapter)


@pytest.mark.parametrize("method", ["tlora", "adalora"])
def test_the_host_does_not_wait(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device a tensor that is read fails."""
    loop = meta_run(tmp_path, monkeypatch, "sdxl", method, train__ema={}, train__steps=3)
    assert loop.state.average and loop.state.average.decay == 0.99
    loop._step()
    loop._step()


# --- plans, recipe, command line ------------------------------------------------------------------


def test_memory_and_disk_are_planned(tiny_sdxl: Path, tmp_path: Path) -> None:
    values = recipe_values(tiny_sdxl, tmp_path, **settings("lora"))
    given = Recipe.model_validate(values)
    without = given.model_copy(update={"train": given.train.model_copy(update={"ema": None})})
    adapter = small_adapter()
    size = sum(parameter.nbytes for parameter in adapter.parameters())
    whole, plain = (disk_space(adapter, recipe).checkpoint for recipe in (given, without))
    assert 0 <= whole - plain - size < 500 * len(list(adapter.parameters()))
    planned, before = plan_memory(given).phases, plan_memory(without).phases
    trained = before[-1].parts["optimizer"] // 2
    assert [now.total - then.total for now, then in zip(planned, before, strict=True)] == [
        0, 0, trained, trained, trained,
    ]  # fmt: skip
    run(tiny_sdxl, tmp_path, **settings("lora", train__steps=2))
    kept = state_of(tmp_path, 2)["average"].values()
    assert trained == sum(tensor.nbytes for tensor in kept)


def test_cells_of_a_comparison_from_before_still_fit(tiny_sdxl: Path, tmp_path: Path) -> None:
    given = Recipe.model_validate(recipe_values(tiny_sdxl, tmp_path)).model_dump(mode="json")
    before = {**given, "train": {k: v for k, v in given["train"].items() if k != "ema"}}
    averaged = {**given, "train": {**given["train"], "ema": {"decay": 0.9}}}
    stamps = [Task("a", tmp_path, one, {}, 1).stamp for one in (before, given, averaged)]
    assert stamps[0] == stamps[1] != stamps[2]


def test_from_the_command_line(tiny_sdxl: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tiny_sdxl, tmp_path, train__steps=2)
    wrong = tlora("train", "--config", recipe, "--set", "train.ema.decay=1.0")
    assert wrong.returncode == 2 and "train.ema.decay" in wrong.stderr
    assert "must be below 1" in wrong.stderr
    done = tlora("train", "--config", recipe, "--set", "train.ema={}")
    assert done.returncode == 0, done.stderr
    assert "ema:\n    decay: 0.99" in (tmp_path / "run" / "recipe.yaml").read_text()
    saved = state_of(tmp_path, 2)
    trained = {name for name in saved["adapter"] if name.rpartition(".")[2] in ("A", "B", "S")}
    assert saved["average"].keys() == trained
