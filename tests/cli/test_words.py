"""The command line as people write it: -h, a recipe's name alone, null, quotes, words in help."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from training_runs import ROOT, tlora, write_recipe

from tlora_cli.cli import commands
from tlora_cli.cli.app import main
from tlora_cli.families import FAMILIES
from tlora_cli.foundation.files import locked
from tlora_cli.methods import METHODS
from tlora_cli.recipe.reading import load_recipe, recipe_schema

SHIPPED = sorted((ROOT / "configs").glob("[!cp]*.yaml"))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["tlora", *map(str, arguments)])
        return main(), *capfd.readouterr()

    return run


# --- null -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, one in METHODS.items() if not one.low_rank])
def test_a_method_without_ranks_can_be_chosen_on_every_shipped_recipe(name: str) -> None:
    assert len(SHIPPED) > 8
    for file in SHIPPED:
        if METHODS[name].word and FAMILIES[load_recipe(file).family].no_learned_words:
            continue  # which can learn none, and says so
        taken = [f"adapter.{key}=null" for key in ("rank", "min_rank", "schedule")]
        recipe = load_recipe(file, [f"adapter.method={name}", *taken])
        assert recipe.adapter.method == name


def test_null_is_a_value_where_the_key_has_it(tmp_path: Path, tiny_sdxl: Path) -> None:
    file = write_recipe(tiny_sdxl, tmp_path, recipe="photo", concept__prompts=["a V*"])
    plain, photo = load_recipe(file), load_recipe(file, ["recipe=photo"])
    assert photo.concept.masks == "auto"
    taken = ["recipe=photo", "concept.scenes=null", "concept.masks=null"]
    assert load_recipe(file, taken).concept.masks is None  # over what the named recipe says
    assert load_recipe(file, ["concept.prompts=null"]).concept.prompts is None
    assert load_recipe(file, ["adapter.rank=null"]).adapter.rank != plain.adapter.rank
    assert load_recipe(file, ["train.preview=null"]).train.preview is None
    assert "null" in str(recipe_schema()["$defs"]["TrainConfig"]["properties"]["preview"])


def test_null_of_what_is_no_key_is_told(said, tmp_path: Path, tiny_sdxl: Path) -> None:  # type: ignore[no-untyped-def]
    file = write_recipe(tiny_sdxl, tmp_path)
    for given, told in (
        ("adapter.ranks=null", "unknown key; did you mean `adapter.rank`?"),
        ("concept.class=null", "concept.class: "),
        ("base=null", "base: "),
    ):
        status, _, err = said("recipe", "check", file, "--set", given)
        assert status == 2 and told in err, err


def test_recipe_check_takes_set(said, tmp_path: Path, tiny_sdxl: Path) -> None:  # type: ignore[no-untyped-def]
    file = write_recipe(tiny_sdxl, tmp_path)
    assert said("recipe", "check", file, "--set", "train.steps=7")[0] == 0
    status, _, err = said("recipe", "check", file, "--set", "train.steps=-7")
    assert status == 2 and "--set train.steps=-7: train.steps" in err
    status, _, err = said("recipe", "check", file, "--set", "adapter.method=oft")
    assert "drop it (--set adapter.rank=null)" in err


# --- a recipe without --config --------------------------------------------------------------------


def test_train_takes_the_name_of_a_recipe_alone(said, tmp_path: Path, tiny_sdxl: Path) -> None:  # type: ignore[no-untyped-def]
    run = tmp_path / "my run"
    file = write_recipe(tiny_sdxl, tmp_path, train__steps=1, output__dir=str(run))
    status, out, err = said("train", file)
    assert status == 0, err
    line = out.splitlines()[2]
    assert line.startswith(f"sample:  tlora sample --adapter '{run}/adapter.safe")
    assert shlex.split(line)[4] == str(run / "adapter.safetensors")
    for more in (["other.yaml"], ["--config", "other.yaml"], ["dog.jpg"]):
        status, _, err = said("train", file, *more)
        assert status == 2 and "one recipe is trained at a time" in err
    status, _, err = said("train", "none.yaml")
    assert status == 2 and "there is no such recipe" in err
    status, _, err = said("train", file, "--class", "dog")
    assert status == 2 and "--class belongs to photographs" in err


def test_a_live_folder_says_that_it_is_live(said, tmp_path: Path, tiny_sdxl: Path) -> None:  # type: ignore[no-untyped-def]
    file = write_recipe(tiny_sdxl, tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)  # as of a run that has begun
    for more in ([], ["--resume"]):
        with locked(tmp_path / "run"):
            status, _, err = said("train", file, *more)
        assert status == 4 and "another tlora run is working in" in err
        assert "--resume" not in err


# --- help -----------------------------------------------------------------------------------------


def test_h_is_help_everywhere(said) -> None:  # type: ignore[no-untyped-def]
    for words in ([], ["train"], ["recipe"], ["recipe", "check"], ["toyworld", "draw"]):
        short, long = said(*words, "-h"), said(*words, "--help")
        assert short == long and short[0] == 0 and "-h, --help" in short[1]


def test_help_has_words_for_values(said) -> None:  # type: ignore[no-untyped-def]
    from typer.main import get_command

    def names(command, way: list[str]) -> list[list[str]]:  # type: ignore[no-untyped-def]
        inner = getattr(command, "commands", {})
        return [n for word, one in inner.items() for n in names(one, [*way, word])] or [way]

    found = names(get_command(commands.app), [])
    assert len(found) > 20
    for way in found:
        text = said(*way, "--help")[1]
        assert not re.search(r"<\w|list\[|\]\]\.\.\.", text), text
    assert "--seed NUMBER" in said("sample", "-h")[1]
    assert "Usage: tlora train [OPTIONS] [RECIPE|PHOTO]..." in said("train", "-h")[1]
    assert "Usage: tlora compare [OPTIONS] GRID" in said("compare", "-h")[1]


# --- a locale that knows ASCII only ---------------------------------------------------------------


def test_an_ascii_locale_is_no_hindrance(tmp_path: Path, tiny_sdxl: Path) -> None:
    folder = tmp_path / "Kätzchen"
    folder.mkdir()
    file = write_recipe(tiny_sdxl, folder)
    (tmp_path / "für.yaml").write_text(file.read_text().replace("dog", "Kätzchen"), "utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    asked = subprocess.run(
        [sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())"],
        env={**os.environ, **ascii_only},
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout.strip() == "ascii", "the test shows nothing here"
    shown = tlora("recipe", "show", tmp_path / "für.yaml", env=ascii_only)
    assert shown.returncode == 0 and "class: Kätzchen" in shown.stdout, shown.stderr
    named = str(folder / "photo.png")
    assert named in shown.stdout
