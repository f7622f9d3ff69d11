"""Overrides of a recipe: `--set`."""

from __future__ import annotations

import pytest
from recipe_texts import LEAST, mistake, mistakes

from tlora_cli.recipe.reading import parse_recipe

# Overrides


def test_overrides_win_and_are_yaml() -> None:
    r = parse_recipe(
        LEAST + "train: {steps: 5}",
        overrides=[
            "train.steps=7",
            "train.optimizer.lr=1e-3",
            "train.preview.prompts=[a, b]",
            "concept.images=[x.png, y.png]",
            "adapter={rank: 8, method: lora}",
            "output.dir=runs/a=b",
        ],
    )
    assert (r.train.steps, r.train.optimizer.lr) == (7, 1e-3)
    assert r.train.preview is not None
    assert r.train.preview.prompts == ["a", "b"]
    assert r.concept.images == ["x.png", "y.png"]
    assert (r.adapter.rank, r.adapter.method, r.output.dir) == (8, "lora", "runs/a=b")


def test_the_last_override_wins() -> None:
    assert parse_recipe(LEAST, overrides=["train.steps=7", "train.steps=8"]).train.steps == 8


def test_overrides_of_base() -> None:
    r = parse_recipe(LEAST, overrides=["base.revision=main"])
    assert (r.base.model, r.base.revision) == ("some/model", "main")
    assert parse_recipe(LEAST, overrides=["base=other"]).base.model == "other"
    r = parse_recipe(LEAST, overrides=["base.revision=main", "base=other"])
    assert (r.base.model, r.base.revision) == ("other", None)


def test_an_override_fills_a_section_that_is_absent_or_empty() -> None:
    assert parse_recipe(LEAST + "train:\n", overrides=["train.steps=3"]).train.steps == 3
    prior = parse_recipe(LEAST, overrides=["concept.prior.weight=0.5"]).concept.prior
    assert prior is not None
    assert prior.weight == 0.5


def test_an_override_mends_the_file() -> None:
    assert parse_recipe(LEAST + "train: {steps: bad}", overrides=["train.steps=3"]).train.steps == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=1", "train.stepz: unknown key; did you mean `train.steps`?"),
        ("rank=1", "rank: unknown key; `rank` belongs under `adapter`"),
        ("train.steps=x", "train.steps: must be a whole number, got the text 'x'"),
        ("train.steps=", "train.steps: must be a whole number, got nothing (null)"),
        ("adapter.min_rank=99", "adapter.min_rank: 99 is above rank 64"),
        ("family.name=x", "family.name: `family` is no section"),
        ("train", "write it as key=value, e.g. train.steps=100"),
        ("=5", "write it as key=value, e.g. train.steps=100"),
        ("train..steps=5", "write it as key=value, e.g. train.steps=100"),
        ("train.optimizer.betas=[0.9", "(text may need quotes)"),
        ("train={steps: 1, steps: 2}", "train.steps: given twice; the first is on line 1"),
        ("train.steps=!!python/name:os.system ", "train.steps: the tag '!!python/name:os.system'"),
    ],
)
def test_wrong_overrides_are_named(override: str, message: str) -> None:
    line = mistake(LEAST, override)
    assert line.startswith(f"--set {override}: ")
    assert message in line


def test_a_very_long_override() -> None:
    assert "write it as key=value" in mistake(LEAST, "a." * 50_000 + "b=1")


def test_mistakes_of_overrides_come_after_those_of_the_file() -> None:
    lines = mistakes(LEAST + "train: {steps: 0}", "adapter.rank=0")
    assert [line.split(":")[0] for line in lines] == ["line 8", "--set adapter.rank=0"]
