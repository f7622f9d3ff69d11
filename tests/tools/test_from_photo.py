"""`tlora train PHOTO --class WORD`: a recipe that fits, or one message with the remedy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import draw_picture, recipe_values

from tlora_cli.cli.app import main
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.named import NAMED, PAPER, PHOTO
from tlora_cli.recipe.reading import load_recipe
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.renderer import draw


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def tlora(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["tlora", *map(str, words)])
    return main()


FEW = ("--set", "train.steps=3", "--set", "concept.scenes={count: 4, each: 1}",
       "--set", "train.preview=null", "--set", "sampling.steps=1")  # fmt: skip
"""Settings with which a run takes seconds."""


def test_a_drawing_is_learned_without_a_recipe_file(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tlora(monkeypatch, "train", "toy:momo/1", "--class", "cat", *FEW) == 0
    out, err = capfd.readouterr()
    assert "recipe: momo.yaml\nrun: runs/momo\n" in err
    assert "adapter: runs/momo/adapter.safetensors" in out
    written = load_recipe(Path("momo.yaml"))
    assert (written.recipe, written.concept.masks, written.adapter.targets) == (
        PHOTO, "auto", "linear",
    )  # fmt: skip
    assert written.concept.scenes is not None and written.train.steps == 1300
    for name in ("scenes.png", "report.html", "masks/1_overlay.png"):
        assert Path("runs/momo", name).exists(), name
    assert tlora(monkeypatch, "train", "--resume", "--output", "runs/momo") == 0
    words = ("train", "toy:momo/1", "--class", "cat", "--recipe", "paper")
    assert tlora(monkeypatch, *words, *FEW[:2], *FEW[4:]) == 0
    assert Path("runs/momo-2/adapter.safetensors").exists(), "a second run has a name of its own"
    again = load_recipe(Path("momo-2.yaml"))
    assert (again.recipe, again.concept.masks, again.concept.scenes) == (PAPER, None, None)
    assert again.train.steps == 400, "the published recipe is a word away"


def test_a_picture_of_ones_own_of_the_world(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    drawn = draw(CONCEPTS["otto"].scenes()[1])
    drawn.image.save("mine.png")
    words = ("train", "mine.png", "--class", "car", "--base", "toy-sdxl", "--recipe", "paper")
    assert tlora(monkeypatch, *words, *FEW[:2], *FEW[4:]) == 0
    assert Path("runs/mine/adapter.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "said", "remedy"),
    [
        (["dog.png", "--class", "dog"], "no CUDA card is here, and nothing says which base",
         "--base stabilityai/stable-diffusion-xl-base-1.0 (about "),
        (["dog.png", "--class", "cat", "--base", "toy-sdxl"],
         "dog.png is no drawing of the built-in world", "for photographs take another --base"),
        (["toy:momo/1", "--class", "dog"], "doesn't know the word 'dog'", "use one of cat, fish"),
        (["toy:momo/1"], "nothing says what the photographs show", "add --class dog"),
        (["none.png", "--class", "cat", "--base", "toy-sdxl"], "no file 'none.png'", "check the"),
        (["toy:momo/1", "--class", "cat", "--recipe", "best"], "--recipe best is not known",
         "use one of paper, photo"),
        (["toy:momo/1", "--class", "cat", "--config", "x.yaml"], "--config names another", "leave"),
        (["--class", "cat", "--config", "x.yaml"], "--class belongs to photographs", "tlora train"),
        ([], "no recipe was given", "tlora train dog.jpg --class dog"),
    ],
)  # fmt: skip
def test_what_stands_against_it_is_one_message(
    words: list[str],
    said: str,
    remedy: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    draw_picture(tmp_path / "dog.png", size=400)
    assert tlora(monkeypatch, "train", *words) == 2
    error = capfd.readouterr().err
    assert said in error
    assert remedy in error.split("fix:")[1]
    assert [file.name for file in tmp_path.iterdir()] == ["dog.png"], "nothing is left behind"


# --- the named recipes ----------------------------------------------------------------------------


def recipe(tiny: Path, folder: Path, base: str | None = None, **changes: Any) -> Recipe:
    values = recipe_values(tiny, folder, **changes)
    if base:
        values |= {"base": base}
        values.pop("train")
        values["adapter"] = {"method": values["adapter"].get("method", "tlora")}
    return Recipe.model_validate(values)


def test_a_recipe_without_a_name_is_the_published_one(tiny_sdxl: Path, tmp_path: Path) -> None:
    plain, paper = recipe(tiny_sdxl, tmp_path), recipe(tiny_sdxl, tmp_path, recipe=PAPER)
    assert plain == paper and plain.recipe == PAPER
    assert plain.concept.masks is None and plain.concept.scenes is None
    assert plain.concept.phrases is None
    assert set(NAMED) == {PAPER, PHOTO}


def test_on_other_bases_photo_adds_the_data_and_leaves_the_rest(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    paper, photo = recipe(tiny_sdxl, tmp_path), recipe(tiny_sdxl, tmp_path, recipe=PHOTO)
    assert photo.concept.masks == "auto" and photo.concept.captions
    assert photo.concept.scenes is not None and photo.concept.phrases == "auto"
    same = ("adapter", "train", "sampling")
    assert all(getattr(paper, name) == getattr(photo, name) for name in same)


def test_what_the_user_says_counts_more_than_photo(tiny_sdxl: Path, tmp_path: Path) -> None:
    draw_picture(tmp_path / "mask.png")
    own = recipe(
        tiny_sdxl,
        tmp_path,
        recipe=PHOTO,
        concept__masks=str(tmp_path / "mask.png"),
        concept__scenes={"count": 9},
    )
    assert own.concept.masks == str(tmp_path / "mask.png")
    assert own.concept.scenes is not None and own.concept.scenes.count == 9
    off = recipe(tiny_sdxl, tmp_path, recipe=PHOTO, concept__scenes=None)
    assert off.concept.scenes is None and off.concept.masks == "auto"


def test_on_a_built_in_base_photo_has_its_reach_and_steps(tiny_sdxl: Path, tmp_path: Path) -> None:
    photo = recipe(tiny_sdxl, tmp_path, "toy-sdxl", recipe=PHOTO)
    assert (photo.adapter.targets, photo.train.steps) == ("linear", 1300)
    assert photo.train.optimizer.lr == 1e-3 and photo.train.lr_schedule.name == "cosine"
    assert (photo.train.word_lr, photo.train.word_share) == (3e-3, 0.75)
    assert photo.train.timesteps.distribution == "logit_normal"
    whole = recipe(tiny_sdxl, tmp_path, "toy-sdxl", recipe=PHOTO, adapter={"method": "dreambooth"})
    assert whole.adapter.targets is None and whole.concept.masks == "auto"


def test_a_trial_draws_few_places(tiny_sdxl: Path, tmp_path: Path) -> None:
    from tlora_cli.tools.preflight.trial_run import trial_recipe

    photo = recipe(tiny_sdxl, tmp_path, recipe=PHOTO)
    trial = trial_recipe(photo, tmp_path / "trial")
    assert trial.concept.scenes is not None
    assert (trial.concept.scenes.count, trial.concept.scenes.each) == (2, 1)


def test_the_cost_of_places_is_that_of_their_calls(tiny_sdxl: Path, tmp_path: Path) -> None:
    from tlora_cli.tools.preflight.lesson_checks import drawing_cost, look_at_scenes

    photo = recipe(tiny_sdxl, tmp_path, recipe=PHOTO, sampling={"steps": 25, "guidance": 5.0})
    # 24 pictures, 25 steps, twice with guidance; a training step is worth three calls.
    assert drawing_cost(photo, 24) == 400
    [finding] = look_at_scenes(photo)
    assert "as long as 400 training steps" in finding.text
    plain = recipe(tiny_sdxl, tmp_path, recipe=PHOTO, sampling={"steps": 25, "guidance": 1.0})
    assert drawing_cost(plain, 24) == 200


def test_texts_beside_photographs_are_looked_at(tiny_sdxl: Path, tmp_path: Path) -> None:
    from tlora_cli.tools.preflight.lesson_checks import look_at_words

    for number in (1, 2):
        draw_picture(tmp_path / f"rex-{number}.png", number)
    names = [str(tmp_path / f"rex-{number}.png") for number in (1, 2)]

    def told() -> tuple[str, str]:
        own = recipe(tiny_sdxl, tmp_path, recipe=PHOTO, concept__images=names)
        [finding] = look_at_words(own)
        return finding.level, finding.text

    assert told() == ("ok", "no texts beside the pictures; the recipe's prompt is used")
    (tmp_path / "rex-1.txt").write_text("V* on a sofa")
    assert told()[0] == "warning" and "1 of 2 pictures have no text" in told()[1]
    (tmp_path / "rex-2.txt").write_text("V* in the snow")
    assert told() == ("ok", "each picture has its text")
    (tmp_path / "rex-2.txt").write_text("")
    assert told()[0] == "problem"
