"""Prompt suites and prompt files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tlora_cli import UserError
from tlora_cli.evaluation.image_requests import Counts, requests_of_suite
from tlora_cli.evaluation.suites import SUITES, read_prompts, suite_for


def test_our_suites_have_25_contextual_and_6_complex_prompts() -> None:
    for suite in SUITES.values():
        assert (len(suite.contextual), len(suite.complex)) == (25, 6)
        assert len(set(suite.prompts)) == 31
        assert all(prompt.count("V*") == 1 for prompt in suite.prompts)
    assert suite_for("golden dog") is SUITES["live"]
    assert suite_for("toy car") is SUITES["object"]


def test_any_list_of_prompts_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"source": "words", "one": ["a {0} at sea"], "two": ["V* up"]}))
    assert read_prompts(file) == ("a V* at sea", "V* up")
    assert read_prompts(file, ["two"]) == ("V* up",)
    listed = tmp_path / "prompts.yaml"
    listed.write_text("- a {concept} in snow\n- a {concept} in snow\n")
    assert read_prompts(listed) == ("a V* in snow",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", "- a dog in the snow", "names no concept"),
        ("a.yaml", "- 3", "must be text"),
        ("a.yaml", "[", "damaged"),
        ("a.json", '{"one": ["a V*"', "damaged"),
        ("a.yaml", "words: none", "no list of prompts"),
        ("a.yaml", "[]", "empty"),
        ("a.yaml", None, "there is no such prompts file"),
    ],
)
def test_bad_prompt_files(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message):
        read_prompts(file)


def test_an_unknown_list_of_a_file_names_the_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("live: [a V*]\nobject: [the V*]\n")
    with pytest.raises(UserError, match="live"):
        read_prompts(file, ["lives"])


def test_a_suite_asks_as_the_paper_does() -> None:
    asks = requests_of_suite(["a V* at sea", "a V* in snow"], Counts(5, 15, 2, seed=3))
    groups = [ask.group for ask in asks]
    assert [groups.count(name) for name in ("base", "suite", "free", "free_without")] == [
        15, 10, 16, 16,
    ]  # fmt: skip
    assert [ask.seed for ask in asks if ask.group == "base"] == list(range(3, 18))
    pairs = [[(a.prompt, a.seed) for a in asks if a.group == g] for g in ("free", "free_without")]
    assert pairs[0] == pairs[1], "drift compares the same seeds"
