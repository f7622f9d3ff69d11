"""Marks in prompts: which are filled in, and which are told of because nothing fills them in."""

from __future__ import annotations

import pytest

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.prompts import (
    names_concept,
    odd_mark,
    sampling_prompt,
    training_prompt,
)

SPELLINGS = ["V*", "{concept}", "{0}", "{placeholder} {class}"]


@pytest.mark.parametrize("mark", SPELLINGS)
def test_every_mark_means_the_same_in_training_and_in_drawing(mark: str) -> None:
    prompt = f"a {mark} in the snow"
    assert training_prompt(prompt, "sks", "dog") == "a sks dog in the snow"
    assert sampling_prompt(prompt, "sks dog", "sks", "dog") == "a sks dog in the snow"
    assert not odd_mark(prompt)


def test_words_that_look_like_marks_are_filled_in_once() -> None:
    assert (
        sampling_prompt("a V* and {class}", "{class} V*", "{class}", "V*") == "a {class} V* and V*"
    )
    # Here V* is the rare word itself, as before.
    assert training_prompt("a V*, {placeholder} {class}", "V*", "dog") == "a V*, V* dog"


def test_given_words_stand_for_both_parts_together_only() -> None:
    assert sampling_prompt("a {placeholder} {class}", "my cat") == "a my cat"
    with pytest.raises(UserError, match=r"says {class}, but the adapter does not say"):
        sampling_prompt("a {class}", "my cat")


@pytest.mark.parametrize(
    "mark",
    ["{placeholder}{", "{1}", "{}", "{class_name}", "{red|blue}", "a }", "<sks>", "<s1>", "[V]",
     "[V]*", "v*", "S*", "V1*", r"V\*", "V *", "V\uff0a", "V\u2217", "V\u200b*", "V*\ufeff"],
)  # fmt: skip
def test_a_mark_that_nothing_fills_in_is_told(mark: str) -> None:
    assert odd_mark(f"a photo of {mark} on a beach")


def test_weights_of_another_program_are_told() -> None:
    assert "is not read" in odd_mark("a (V*:1.2) on a beach")


def test_a_lora_of_another_program_says_how_files_are_named() -> None:
    assert "--adapter FILE:STRENGTH" in odd_mark("a V*, <lora:my dog:0.8>")


@pytest.mark.parametrize(
    "prompt",
    ["a V* in the snow", "5 < 6 > 4", "a V*, 3*4", "rated *****", "a V*'s collar", "(a V*)",
     "a\u00a0V*", "“a V*”", "\u0646\u0645\u06cc\u200c\u062e V*", "👩\u200d🚀 with a V*"],
)  # fmt: skip
def test_what_is_no_mark_is_left_alone(prompt: str) -> None:
    assert not odd_mark(prompt)


def test_a_placeholder_may_look_like_a_mark() -> None:
    assert odd_mark("a <sks> dog") and not odd_mark("a <sks> dog", ["<sks>"])


def test_names_are_found_however_they_are_spaced() -> None:
    assert names_concept("A SKS\u00a0 dog", ["sks dog"])
    assert not names_concept("a dog in the snow", ["sks dog", None, ""])
