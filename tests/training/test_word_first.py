"""A word that is learned first, and weights after it: `train.word_share`."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copyfile, rmtree
from typing import cast

import pytest
import torch
from safetensors.torch import load_file
from training_runs import run, same_tensors

from tlora_cli.families import Family
from tlora_cli.formats import read_adapter
from tlora_cli.training.encoding import Encoding

WORD = {"train__word_lr": 0.1, "concept__placeholder": "the"}  # one token of the tiny tokenizer
FIRST = {**WORD, "train__word_share": 0.5, "train__checkpoint": {"every": 1, "keep": 9}}


def words_of(file: Path) -> dict[str, torch.Tensor]:
    return {name: parts["vectors"] for name, parts in read_adapter(file, ()).words.items()}


def at(folder: Path, step: int) -> Path:
    return folder / f"run/checkpoints/checkpoint-{step:06d}/adapter.safetensors"


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": {"method": "tlora", "rank": 4}},
        {"adapter": {"method": "adalora", "rank": 4}},
        {"concept__caption_dropout": 0.5, "train__preserve": {"weight": 1.0}},
    ],
)
def test_a_word_first_and_weights_after_it(
    changes: dict[str, object], tiny_sdxl: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    run(tiny_sdxl, whole, **FIRST, **changes)
    words = [words_of(at(whole, step))["text_encoder_2"] for step in range(1, 7)]
    assert not torch.equal(words[1], words[0]) and not torch.equal(words[2], words[1])
    assert all(torch.equal(word, words[2]) for word in words[3:])

    def weights(step: int) -> dict[str, torch.Tensor]:
        held = load_file(at(whole, step))
        return {key: one for key, one in held.items() if key.startswith("unet.")}

    begun, after = weights(1), weights(3)
    assert all(torch.equal(after[key], one) for key, one in begun.items())
    assert any(not torch.equal(weights(4)[key], one) for key, one in begun.items())
    result = whole / "run/adapter.safetensors"
    before = copyfile(result, tmp_path / "before.safetensors")
    for last in (5, 2):  # killed in either part
        result.unlink()
        for step in range(last + 1, 7):
            rmtree(at(whole, step).parent)
        run(tiny_sdxl, whole, **FIRST, **changes, resume=True)
        assert same_tensors(before, result)


def test_the_word_is_learned_as_by_textual_inversion(tiny_sdxl: Path, tmp_path: Path) -> None:
    """So the weights, which have learned nothing yet, add nothing at all."""
    alone = {
        "adapter": {"method": "textual_inversion"},
        "train__optimizer": {"name": "adamw", "lr": 0.1},
        "train__steps": 3,
        "concept__placeholder": "the",
    }
    run(tiny_sdxl, tmp_path / "first", **FIRST)
    run(tiny_sdxl, tmp_path / "alone", **alone)
    found = words_of(at(tmp_path / "first", 3))
    expected = words_of(tmp_path / "alone/run/adapter.safetensors")
    assert found.keys() == expected.keys() and len(found) == 2
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_rate_runs_through_its_schedule_in_each_part(tiny_sdxl: Path, tmp_path: Path) -> None:
    run(tiny_sdxl, tmp_path, **FIRST, train__lr_schedule={"name": "linear"})
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["lr"] for line in lines]
    assert rates == pytest.approx([0.1, 0.1 * 2 / 3, 0.1 / 3, 1e-3, 1e-3 * 2 / 3, 1e-3 / 3])


def test_captions_are_encoded_once_when_the_word_stays() -> None:
    class Counting:
        no_learned_words = ""
        calls = 0
        learned = True

        def encode_prompts(self, pipeline: object, texts: list[str]) -> dict[str, torch.Tensor]:
            self.calls += 1
            return {"states": torch.ones(1, requires_grad=self.learned)}

    family = Counting()
    encode = Encoding(cast(Family, family), None)
    for _ in range(3):
        encode("a photo")
    assert family.calls == 3
    family.learned = False
    for _ in range(3):
        encode("a photo")
    assert family.calls == 4
