"""`tlora sample` stops before it draws something else than what the prompt seems to ask for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from training_runs import tlora

Cli = Callable[..., str]

REFUSED = {
    "no concept": ("a dog in the snow", ["names neither V* nor 'sks dog'", "--anyway"]),
    "braces": ("a {} in the snow", ["'{}' is filled in by nothing", "write V*"]),
    "angle brackets": ("a <sks> dog, a V*", ["'<sks>' is filled in by nothing"]),
    "a small v": ("a v* in the snow", ["'v*' is filled in by nothing"]),
    "another program's file": ("a V* <lora:dog:1>", ["--adapter FILE:STRENGTH"]),
    "nothing seen": ("a V\u200b* in the snow", ["an invisible character (U+200B)"]),
}


@pytest.mark.parametrize(("prompt", "told"), REFUSED.values(), ids=REFUSED)
def test_it_stops_and_says_what_to_write(
    prompt: str, told: list[str], cli: Cli, trained: Path, tmp_path: Path
) -> None:
    message = cli("sample", "--adapter", trained, "--prompt", "a V*", "--prompt", prompt)
    assert all(words in message for words in told), message
    assert not (tmp_path / "samples").exists()


def test_marks_are_filled_in_and_what_is_meant_is_drawn(trained: Path, tmp_path: Path) -> None:
    given = ["a V*", "a {0} rides", "a {placeholder} {class} runs", "the {class} sks", "SKS  dog"]
    prompts = [word for prompt in given for word in ("--prompt", prompt)]
    draw = ("sample", "--adapter", trained, "--steps", 1, "--device", "cpu", "--output")
    done = tlora(*draw, "a", *prompts, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = tlora(*draw, "b", "--prompt", "a cat, {red|blue}", "--anyway", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = [*sorted((tmp_path / "a").iterdir()), *(tmp_path / "b").iterdir()]
    drawn = [json.loads(Image.open(file).info["tlora"])["prompt"] for file in files]
    assert drawn == ["a sks dog", "a sks dog rides", "a sks dog runs", "the dog sks", "SKS  dog",
                     "a cat, {red|blue}"]  # fmt: skip
