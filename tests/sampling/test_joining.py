"""Several adapters at once: each under its own mask and strength, or refused with the reason.

Before, `--adapter` given twice drew with the second alone, in silence.
"""

from __future__ import annotations

import copy
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapter_files import masked_update
from PIL import Image
from small_denoisers import FAMILIES, call, in_double, put, stir
from training_runs import run, tlora

from tlora_cli.foundation.errors import UserError
from tlora_cli.sampling.joining import joined_concept, named_adapter

TIMES = (0.0, 400.0, 950.0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frozen", [False, True])
def test_each_adds_its_own_update_under_its_own_mask(family: str, frozen: bool) -> None:
    make, inputs_of, _ = FAMILIES[family]
    model, inputs = make(), inputs_of(2)
    bare = copy.deepcopy(model)
    adapters = [stir(put(model, "tlora", 3)), stir(put(model, "vanilla_tlora", 1))]
    adapters.append(stir(put(model, "lora")))
    strengths = (0.8, -0.5, 1.5)
    for adapter, strength in zip(adapters, strengths, strict=True):
        adapter.scale = strength
    with torch.no_grad(), ExitStack() as stack:
        if frozen:
            for adapter in adapters:
                stack.enter_context(adapter.frozen())
        for t in TIMES:
            joined = copy.deepcopy(bare).double()
            layers = dict(joined.named_modules())
            for adapter, strength in zip(adapters, strengths, strict=True):
                weights = adapter.weights()
                for name in weights.layers:
                    weight: Any = layers[name].weight
                    weight += strength * masked_update(weights, name, t)
            wanted = call(joined, in_double(inputs), torch.tensor([t]), family)
            found = call(model, inputs, torch.tensor([t]), family)
            alone = call(bare, inputs, torch.tensor([t]), family)
            assert (found - wanted).abs().max() < 1e-3 * wanted.abs().max()
            assert (found - alone).abs().max() > 1e-2 * wanted.abs().max()


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of adapters: a and b are a dog, c is a cat, d replaces weights."""
    folder = tmp_path_factory.mktemp("two")
    own: dict[str, dict[str, Any]] = {
        "a": {"train__seed": 1},
        "b": {"train__seed": 2, "adapter": {"method": "lora", "rank": 3}},
        "c": {"concept__class": "cat"},
        "d": {"adapter": {"method": "oft", "blocks": 4}},
    }
    for name, changes in own.items():
        changes |= {"train__optimizer": {"name": "adamw", "lr": 0.05}, "train__steps": 3}
        outcome = run(tiny_sdxl, folder / name, **changes)
        assert outcome.adapter is not None
        outcome.adapter.rename(folder / f"{name}.safetensors")
    return folder


def drawn(folder: Path, name: str, *adapters: str, more: tuple[Any, ...] = ()) -> Any:
    words = [word for one in adapters for word in ("--adapter", one)]
    done = tlora(
        "sample", *words, "--prompt", "a sks dog", "--steps", 2, "--output", name, *more,
        "--device", "cpu", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [file] = (folder / name).glob("*.png")
    picture = Image.open(file)
    return np.asarray(picture).astype(int), json.loads(picture.info["tlora"]), done.stderr


def test_both_are_drawn_with(two: Path) -> None:
    a, _, _ = drawn(two, "only-a", "a.safetensors")
    b, _, _ = drawn(two, "only-b", "b.safetensors")
    both, about, told = drawn(two, "both", "a.safetensors", "b.safetensors:0.7")
    assert min(abs(both - a).max(), abs(both - b).max()) > 3
    assert about["scale"] == 1.0 and about["joined"] == {"b.safetensors": 0.7}
    warned = "the adapters have one name for what they learned, 'sks dog': it will mix"
    assert f"warning: {warned}" in told.splitlines()


@pytest.mark.full
def test_strengths_count_and_the_order_does_not(two: Path) -> None:
    a, _, _ = drawn(two, "alone", "a.safetensors")
    both, _, _ = drawn(two, "first", "a.safetensors", "b.safetensors:0.7")
    turned, _, _ = drawn(two, "turned", "b.safetensors:0.7", "a.safetensors")
    assert abs(turned - both).max() <= 1, "the order doesn't matter"
    nothing, _, _ = drawn(two, "nothing", "a.safetensors", "b.safetensors:0")
    assert abs(nothing - a).max() <= 1
    half, about, _ = drawn(two, "half", "a.safetensors:0.5", more=("--scale", 0.5))
    quarter, _, _ = drawn(two, "quarter", "a.safetensors", more=("--scale", 0.25))
    assert not (half - quarter).any() and about["scale"] == 0.25


REFUSED = {
    "a method that replaces weights": (["a", "d"], "a sks dog", "trained with oft, which does not"),
    "two names": (["a", "c"], "a V*", "V* could be the words of any of these adapters"),
    "neither name": (["a", "c"], "a horse", "names neither V* nor 'sks dog'"),
}


@pytest.mark.parametrize(("names", "prompt", "told"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_joined_says_why(
    names: list[str], prompt: str, told: str, two: Path
) -> None:
    words = [word for one in names for word in ("--adapter", f"{one}.safetensors")]
    done = tlora("sample", *words, "--prompt", prompt, "--output", "refused", cwd=two)
    assert done.returncode == 2 and told in done.stderr
    assert not (two / "refused").exists()


@pytest.mark.full
def test_two_names_in_one_prompt(two: Path) -> None:
    words = ["--adapter", "a.safetensors", "--adapter", "c.safetensors", "--steps", 1]
    prompt = ["--prompt", "a sks dog and a sks cat", "--output", "names", "--device", "cpu"]
    done = tlora("sample", *words, *prompt, cwd=two)
    assert done.returncode == 0, done.stderr
    done = tlora("sample", *words, "--min-rank", 1, *prompt, cwd=two)
    assert done.returncode == 2 and "--min-rank belongs to one adapter" in done.stderr


# --- FILE:STRENGTH --------------------------------------------------------------------------------

TEXTS = {
    "a.safetensors": ("a.safetensors", 1.0),
    "a.safetensors:0.8": ("a.safetensors", 0.8),
    "a.safetensors:-.5": ("a.safetensors", -0.5),
    "runs/10:30/a.safetensors": ("runs/10:30/a.safetensors", 1.0),
    "runs/10:30/a.safetensors:2": ("runs/10:30/a.safetensors", 2.0),
    r"C:\lora\a.safetensors": (r"C:\lora\a.safetensors", 1.0),
    r"C:\lora\a.safetensors:1e-1": (r"C:\lora\a.safetensors", 0.1),
    "a.safetensors:nan": ("a.safetensors:nan", 1.0),
    ":0.5": (":0.5", 1.0),
}


@pytest.mark.parametrize(("text", "named"), TEXTS.items(), ids=TEXTS)
def test_a_strength_stands_behind_the_last_colon(text: str, named: tuple[str, float]) -> None:
    assert named_adapter(text) == (Path(named[0]), named[1])


def test_a_file_whose_name_ends_so_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("a:0.5").touch()
    assert named_adapter("a:0.5") == (Path("a:0.5"), 1.0)
    assert named_adapter("a:0.5:0.25") == (Path("a:0.5"), 0.25)
    assert named_adapter("~/a:0.5:1") == (tmp_path / "a:0.5", 1.0)
    Path("b").touch()
    for wrong in ("b:0,8", "b:strong", "b:inf", "b:"):
        with pytest.raises(UserError, match="is no number") as refused:
            named_adapter(wrong)
        assert "--adapter b:0.8" in refused.value.do


def test_words_of_several() -> None:
    assert joined_concept(["sks dog", None]) == "sks dog" == joined_concept(["sks dog", "sks dog"])
    assert joined_concept(["sks dog", "sks cat"]) is None is joined_concept([None])
