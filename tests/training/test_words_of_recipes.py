"""A training prompt that doesn't name the concept is refused, and V* means the same everywhere.

Before, `prompt: a photo of V*` trained on the text "V*", which sampling never writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_runs import draw_picture, run, same_tensors, tlora, write_recipe

from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.reading import parse_recipe
from tlora_cli.recipe.words import word_doubts, word_problems
from tlora_cli.training.lessons import captions_of

START = {"family": "sdxl", "base": "toy-sdxl", "output": {"dir": "o"}}


def recipe(train: dict[str, Any] | None = None, **concept: Any) -> Recipe:
    values = {"images": "x.png", "class": "cat", **concept}
    return Recipe.model_validate({**START, "concept": values, "train": train or {}})


@pytest.mark.parametrize("prompt", ["a photo of V*", "a photo of {0}", "a photo of {concept}"])
def test_marks_train_on_the_words_that_sampling_writes(
    prompt: str, tiny_sdxl: Path, tmp_path: Path
) -> None:
    marked = run(tiny_sdxl, tmp_path / "a", concept__prompt=prompt, train__steps=2)
    plain = run(tiny_sdxl, tmp_path / "b", train__steps=2)
    assert marked.adapter and plain.adapter and same_tensors(marked.adapter, plain.adapter)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"prompt": "a photo of a cat"}, "no training prompt names the concept (sks)"),
    "none of several": ({"prompts": ["a photo", "a {class}"]}, "no training prompt names"),
    "a mark of others": ({"prompt": "a <sks>, sks cat"}, "'<sks>' is filled in by nothing"),
    "a small v": ({"prompts": ["a v*, sks cat"]}, "'v*' is filled in by nothing"),
    "class pictures": ({"prior": {"prompt": "a photo of V*"}}, "it shows no concept"),
}  # fmt: skip


@pytest.mark.parametrize(("concept", "told"), WRONG.values(), ids=WRONG)
def test_a_prompt_that_would_teach_nothing_is_refused(
    concept: dict[str, Any], told: str, tiny_sdxl: Path, tmp_path: Path
) -> None:
    assert any(told in text for _, text in word_problems(recipe(**concept)))
    changes = {f"concept__{key}": value for key, value in concept.items()}
    with pytest.raises(UserError) as refused:
        run(tiny_sdxl, tmp_path, **changes)
    assert told in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_previews_are_looked_at_too() -> None:
    odd = recipe({"preview": {"prompts": ["a V*", "a {}"]}})
    [(path, text)] = word_problems(odd)
    assert path == ("train", "preview", "prompts", 1) and "'{}'" in text
    [doubt] = word_doubts(recipe({"preview": {"prompts": ["a V*", "a dog"]}}))
    assert "'a dog'" in doubt


def test_one_prompt_of_several_without_the_concept_is_told_and_trained() -> None:
    made = recipe(prompts=["a {placeholder} {class}", "a {class}"])
    assert not word_problems(made)
    [doubt] = word_doubts(made)
    assert "'a cat'" in doubt


def test_the_words_written_out_are_as_good_as_marks() -> None:
    assert not word_problems(recipe(prompt="a photo of sks cat"))
    assert not word_problems(recipe(prompt="a house in the style of sks"))


def test_the_command_line_names_the_line(tiny_sdxl: Path, tmp_path: Path) -> None:
    file = write_recipe(tiny_sdxl, tmp_path, concept__prompt="a photo of a dog")
    for words in (["train", "--config"], ["recipe", "check"], ["validate"]):
        done = tlora(*words, file, cwd=tmp_path)
        assert done.returncode == 2
        said = done.stdout + done.stderr
        assert "line 1: concept.prompt: no training prompt names the concept (sks)" in said


def test_a_run_that_began_before_can_still_be_read_and_resumed(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"concept__prompt": "a photo of a dog", "train__steps": 2}
    with monkeypatch.context() as before:
        before.setattr("tlora_cli.training.loop.check_words", lambda recipe: None)
        run(tiny_sdxl, tmp_path, **changes)
    text = (tmp_path / "run" / "recipe.yaml").read_text()
    assert parse_recipe(text, began=True).concept.prompt == "a photo of a dog"
    with pytest.raises(UserError, match="no training prompt names the concept"):
        parse_recipe(text)
    changes["train__steps"] = 4
    assert run(tiny_sdxl, tmp_path, resume=True, **changes).step == 4


def test_captions_know_the_same_marks(tmp_path: Path) -> None:
    picture = draw_picture(tmp_path / "a.png")
    concept = recipe(captions=True).concept
    for text in ("a V* in the snow", "a {placeholder} {class} in the snow", "a {0} in the snow"):
        (tmp_path / "a.txt").write_text(text)
        assert captions_of(picture, concept) == ["a sks cat in the snow"]
    (tmp_path / "a.txt").write_text("a <sks> in the snow")
    with pytest.raises(UserError, match=r"the text a.txt is not understood: '<sks>'"):
        captions_of(picture, concept)
