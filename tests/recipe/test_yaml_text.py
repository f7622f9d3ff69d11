"""YAML as people write it: numbers, texts, duplicate keys, aliases and tags."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_texts import LEAST, mistake

from tlora_cli.recipe.reading import parse_recipe


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-4", 1e-4), ("1E-5", 1e-5), ("1e+3", 1e3), ("1E5", 1e5), ("2", 2.0), (".5", 0.5)],
)
def test_numbers_that_yaml_1_1_reads_as_text(written: str, value: float) -> None:
    r = parse_recipe(LEAST + f"train: {{optimizer: {{lr: {written}}}}}")
    assert r.train.optimizer.lr == value


@pytest.mark.parametrize("text", ["no", "on", "y", "1:30", "2024-01-01", "1_0", "0b1"])
def test_text_that_yaml_1_1_reads_as_something_else(text: str) -> None:
    assert parse_recipe(LEAST.replace("dog\n", f"{text}\n", 1)).concept.class_name == text


def test_leading_zeros_are_decimal() -> None:
    assert parse_recipe(LEAST + "train: {steps: 010}").train.steps == 10


def test_duplicate_keys() -> None:
    assert mistake(LEAST + "train:\n  steps: 5\n  steps: 6\n") == (
        "line 10: train.steps: given twice; the first is on line 9"
    )
    assert (
        mistake(LEAST + "family: flux\n") == "line 8: family: given twice; the first is on line 1"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c", "line 1: not valid YAML, column 5: mapping values are not allowed here; put"),
        ("a: 1\nb: [1,", "line 2: not valid YAML, column 7: expected the node content"),
        ("a:\n\tb: 1", "line 2: not valid YAML, column 1: found character '\\t' that cannot"),
        ("base: *x", "line 1: not valid YAML, column 7: found undefined alias 'x'"),
        ("a: 1\n---\nb: 2", "line 2: not valid YAML, column 1: expected a single document"),
        ("a: 1\nb: \x07", "line 2: the character U+0007 is not allowed"),
        ('a: "\\U99999999"', "not valid YAML: "),
        ("- a", "the recipe must be `key: value` lines, got a list"),
        ("text", "the recipe must be `key: value` lines, got a single value"),
        ("a: " + "[" * 5000, "line 1: nested more than 20 deep"),
        ("a: [" + "1," * 20_000 + "]", "line 1: more than 10000 values; this is no recipe"),
        ("a: &a [*a]", "line 1: aliases nest more than 20 deep"),
    ],
)
def test_text_that_is_no_recipe(text: str, message: str) -> None:
    assert mistake(text).startswith(message)


def test_alias_bomb() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for above, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{above}'] * 10)}]")
    assert mistake("\n".join(lines)).endswith("aliases expand to more than 10000 values")


def test_small_aliases_are_fine() -> None:
    text = LEAST.replace("class: dog", "class: &dog dog\n  placeholder: *dog")
    assert parse_recipe(text).concept.placeholder == "dog"


def test_tags_make_no_objects(tmp_path: Path) -> None:
    target = tmp_path / "made"
    text = LEAST + f"adapter: !!python/object/apply:os.mkdir ['{target}']\n"
    assert mistake(text) == (
        "line 8: adapter: the tag '!!python/object/apply:os.mkdir' is not allowed; "
        "give a plain value"
    )
    assert not target.exists()
    assert "the tag '!mine' is not allowed" in mistake(LEAST + "adapter: !mine {}")
    assert mistake(LEAST + "train: {steps: !!int x}") == "line 8: train.steps: 'x' is no int"
