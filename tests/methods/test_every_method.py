"""All that every method must do: start at the model, be masked as merged, train, resume, sample.

A method that is added is taken up by itself; what only one does is tested beside its formula.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from small_denoisers import (
    FAMILIES,
    MIN_RANK,
    ON_LAYERS,
    RANK,
    call,
    in_double,
    make_unet,
    merged,
    put,
    stir,
    unet_inputs,
)
from training_runs import recipe_values, run, same_tensors

from tlora_cli import UserError
from tlora_cli.formats import read_adapter
from tlora_cli.methods import METHODS
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.generate import generate
from tlora_cli.sampling.session import Request

COMPARED = [name for name in METHODS if not name.endswith(("lora",)) or name == "adalora"]
PROMPT = "a photo of a V* in the snow"


def settings(method: str, **more: Any) -> dict[str, Any]:
    adapter: dict[str, Any] = {"method": method}
    if METHODS[method].size == "rank":
        adapter["rank"] = 4
    elif METHODS[method].size == "blocks":
        adapter["blocks"] = 2
    changes: dict[str, Any] = {"adapter": adapter, "concept__prior": None}
    changes["train__preview"] = {"every": 6, "prompts": [PROMPT], "seed": 3}
    return {**changes, **more}


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path))


def test_these_are_compared() -> None:
    assert set(COMPARED) == set(METHODS) - {"lora", "vanilla_tlora", "ortho_lora", "tlora"}
    assert set(COMPARED) == {name for name, method in METHODS.items() if method.compared}
    assert all("sdxl" in method.steps for method in METHODS.values())


# --- on a denoiser -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ON_LAYERS)
def test_the_start_changes_nothing(family: str, method: str) -> None:
    make, make_inputs, _ = FAMILIES[family]
    model, inputs = make(), make_inputs(2)
    before = call(model, inputs, 300, family)
    put(model, method)
    assert torch.equal(call(model, inputs, 300, family), before)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ON_LAYERS)
@pytest.mark.parametrize(
    "t", [0, 999, 437, *(pytest.param(t, marks=pytest.mark.full) for t in (300, 700))]
)
def test_the_masked_model_is_the_model_with_the_active_components_merged(
    family: str, method: str, t: int
) -> None:
    make, make_inputs, _ = FAMILIES[family]
    model, inputs = make(), make_inputs(2)
    masked = METHODS[method].masked
    adapter = stir(put(model, method, MIN_RANK if masked else None), 0.1)
    rank = (RANK - MIN_RANK) * (1000 - t) // 1000 + MIN_RANK if masked else RANK
    expected = call(merged(model, adapter, rank), in_double(inputs), t, family)
    got = call(model, inputs, t, family)
    assert (got.double() - expected).abs().max() < 1e-4 * expected.abs().max()
    if rank < RANK:
        full = call(merged(model, adapter, RANK), in_double(inputs), t, family)
        assert (expected - full).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ON_LAYERS)
def test_attaching_leaves_the_model_as_it_is_and_removing_gives_it_back(
    family: str, method: str
) -> None:
    make, make_inputs, _ = FAMILIES[family]
    model, inputs = make(), make_inputs(1)
    answer = call(model, inputs, 600, family)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    kinds = {name: type(module) for name, module in model.named_modules()}
    adapter = put(model, method)
    assert list(model.state_dict()) == list(state)
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    stir(adapter)
    assert not torch.equal(call(model, inputs, 600, family), answer)
    adapter.remove()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(call(model, inputs, 600, family), answer)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("method", ON_LAYERS)
def test_gradients_reach_the_adapter_only(method: str) -> None:
    model = make_unet()
    adapter = put(model, method)
    (call(model, unet_inputs(1), 500, "sdxl") ** 2).mean().backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None and p.dtype == torch.float32 for p in adapter.parameters())


# --- a run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_resumes_and_samples_what_it_previewed(
    method: str, tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(tiny_sdxl, tmp_path / "whole", **settings(method))
    assert whole.adapter is not None
    # Two sittings: the first ends after 4 of 6 steps, with all that the method keeps.
    halves = tmp_path / "halves"
    shutil.copytree(tmp_path / "whole" / "run", halves)
    shutil.rmtree(halves / "checkpoints" / "checkpoint-000006")
    (halves / "adapter.safetensors").unlink()
    moved = settings(method, output__dir=str(halves))
    again = run(tiny_sdxl, tmp_path / "whole", resume=True, **moved)
    assert again.adapter is not None and again.adapter.parent == halves
    assert same_tensors(whole.adapter, again.adapter), "the resumed run is the same run"
    if method == "adalora":
        assert (down_rows(whole.adapter) == 0).any(), "nothing was pruned"

    preview = next((tmp_path / "whole" / "run" / "previews" / "step-000006").glob("*.png"))
    request = Request(whole.adapter, [PROMPT], tmp_path / "out", seed=3, device="cpu")
    [drawn] = generate(request, lambda line: None)
    assert (pixels(drawn) == pixels(preview)).all()
    base = Request(whole.adapter, [PROMPT], tmp_path / "base", seed=3, device="cpu", scale=0.0)
    [without] = generate(base, lambda line: None)
    if method != "textual_inversion":  # a word has no strength
        assert (pixels(without) != pixels(preview)).any(), "the adapter does something"


def down_rows(file: Path) -> torch.Tensor:
    layers = read_adapter(file, ()).layers
    return torch.stack([down.norm(dim=1) for down, _ in layers.values()])


@pytest.mark.parametrize("method", ["oft", "oft_v2", "gsoft_double", "svdiff", "dreambooth"])
def test_a_method_trains_on_flux(method: str, tiny_flux: Path, tmp_path: Path) -> None:
    outcome = run(tiny_flux, tmp_path, **settings(method, train__steps=2))
    assert outcome.adapter is not None
    with safe_open(outcome.adapter, "pt") as file:
        header, keys = file.metadata(), list(file.keys())
    assert header["tlora.method"] == method
    assert all(".tlora." in key for key in keys)
    assert "lora_adapter_metadata" not in header, "no other program should think it can load this"


# --- mistakes -------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a schedule": (
        {"method": "oft", "schedule": {"kind": "cosine"}},
        "oft has no ranks, so no schedule",
    ),
    "a least rank": ({"method": "svdiff", "min_rank": 2}, "svdiff has no ranks, so no min_rank"),
    "a rank": ({"method": "dreambooth", "rank": 8}, "dreambooth has no ranks, so no rank"),
    "blocks for none": ({"method": "lora", "blocks": 8}, "lora has no blocks"),
    "blocks for svdiff": ({"method": "svdiff", "blocks": 8}, "svdiff has no blocks"),
    "pissa masked": ({"method": "pissa", "rank": 4, "min_rank": 2}, "always uses its full rank"),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_a_method_would_ignore_are_refused(
    case: str, tiny_sdxl: Path, tmp_path: Path
) -> None:
    adapter, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate(recipe_values(tiny_sdxl, tmp_path, adapter=adapter))


def test_blocks_that_do_not_divide_a_layer_are_refused(tiny_sdxl: Path, tmp_path: Path) -> None:
    adapter = {"method": "oft", "blocks": 7}
    with pytest.raises(UserError, match="can't be cut into 7 equal blocks") as caught:
        run(tiny_sdxl, tmp_path, adapter=adapter)
    assert caught.value.where == "adapter.blocks"


def test_a_least_rank_for_a_file_without_ranks_is_refused(tiny_sdxl: Path, tmp_path: Path) -> None:
    outcome = run(tiny_sdxl, tmp_path, **settings("dreambooth", train__steps=1))
    assert outcome.adapter is not None
    request = Request(outcome.adapter, ["a V*"], tmp_path / "out", min_rank=2, device="cpu")
    with pytest.raises(UserError, match="dreambooth has no ranks"):
        generate(request, lambda line: None)
