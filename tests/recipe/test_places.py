"""Variables and ~ in the paths of recipes, grids and options: filled in, or told.

Before, `output: {dir: ${DATA}/run}` made a folder called `${DATA}`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_runs import run, tlora, write_recipe

from tlora_cli.comparison.grid_io import load_grid
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.variables import filled_path
from tlora_cli.recipe.reading import load_recipe, parse_recipe

TEXT = """\
family: sdxl
base: {model: $MODELS/sdxl.safetensors, config: "${MODELS}/sdxl"}
concept:
  images: [$DATA/a.png, "${DATA}/b.png"]
  masks: [$DATA/ma.png, /m/b.png]
  class: dog
  mask_model: $MODELS/seg
  prior: {images: $DATA/class}
  scenes: {places: $DATA/places}
output: {dir: "~/runs/$NAME"}
"""


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DATA": "/d", "MODELS": "/m", "NAME": "rex", "EMPTY": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NOT_SET", raising=False)


def test_every_path_of_a_recipe_is_filled_in() -> None:
    recipe = parse_recipe(TEXT.replace("  mask_model: $MODELS/seg\n", ""))
    assert recipe.base.model == "/m/sdxl.safetensors" and recipe.base.config == "/m/sdxl"
    concept = recipe.concept
    assert concept.images == ["/d/a.png", "/d/b.png"] and concept.masks == ["/d/ma.png", "/m/b.png"]
    assert concept.prior and concept.prior.images == "/d/class"
    assert concept.scenes and concept.scenes.places == "/d/places"
    assert recipe.output.dir == "~/runs/rex"
    auto = TEXT.replace("[$DATA/ma.png, /m/b.png]", "auto")
    assert parse_recipe(auto).concept.mask_model == "/m/seg"


def test_set_fills_in_too() -> None:
    short = "family: sdxl\nbase: toy-sdxl\nconcept: {images: a.png, class: dog}\noutput: {dir: o}\n"
    given = ["concept.images=$DATA/x.png", "base.model=${MODELS}/b", 'output={dir: "$NAME"}']
    recipe = parse_recipe(short, overrides=given)
    assert recipe.concept.images == "/d/x.png" and recipe.base.model == "/m/b"
    assert recipe.output.dir == "rex"
    with pytest.raises(UserError, match=r"--set output.dir=\$NOT_SET: .*NOT_SET .* is not set"):
        parse_recipe(short, overrides=["output.dir=$NOT_SET"])


def test_words_are_left_alone() -> None:
    short = (
        "family: sdxl\nbase: toy-sdxl\nconcept: {images: a.png, class: $DATA, prompt: '{class} sks"
    )
    recipe = parse_recipe(f"{short} for $5'}}\noutput: {{dir: o, project: $NAME}}\n")
    assert recipe.concept.class_name == "$DATA" and recipe.concept.prompt == "{class} sks for $5"
    assert recipe.output.project == "$NAME"


WRONG = {
    "not set": ("$NOT_SET/x", "the variable NOT_SET in the path '$NOT_SET/x' is not set"),
    "empty": ("${EMPTY}/x", "the variable EMPTY in the path '${EMPTY}/x' is empty"),
    "a default of a shell": ("${DATA:-/x}", "${DATA:-/x} in the path '${DATA:-/x}' is no variable"),
    "Windows": (r"%USERPROFILE%\x.png", "%USERPROFILE% in the path"),
    "nobody's home": ("~nobody-of-that-name/x", "~nobody-of-that-name is the home of nobody here"),
    "a tab": ("C:\temp\new", "holds the control character '\\t'"),
}


@pytest.mark.parametrize(("path", "told"), WRONG.values(), ids=WRONG)
def test_what_can_not_be_filled_in_is_told(path: str, told: str) -> None:
    with pytest.raises(ValueError) as refused:
        filled_path(path)
    assert str(refused.value).startswith(told) or told in str(refused.value)


@pytest.mark.parametrize("name", ["a$NOT_SET", "%A%", "$5", "a b", "~x"])
def test_a_name_that_is_there_is_that_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    assert filled_path(name) == name


def test_each_mistake_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(TEXT.replace("$DATA/places", "$NOT_SET").replace("$NAME", "$NOT_SET"))
    with pytest.raises(UserError) as refused:
        load_recipe(file)
    said = str(refused.value)
    assert "line 9: concept.scenes.places: the variable NOT_SET" in said
    assert "line 10: output.dir: the variable NOT_SET" in said


def test_a_run_keeps_the_whole_path_and_resumes_from_any_shell(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DATA", "MODELS", "NAME", "EMPTY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("TLORA_HERE", str(tmp_path))
    here = "${TLORA_HERE}"
    changes: dict[str, Any] = {
        "output__dir": f"{here}/runs",
        "concept__images": f"{here}/photo.png",
    }
    file = write_recipe(tiny_sdxl, tmp_path, train__steps=2, **changes)
    done = tlora("train", "--config", file, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("$*"))
    kept = load_recipe(tmp_path / "runs" / "recipe.yaml")
    assert kept.concept.images == str(tmp_path / "photo.png")
    monkeypatch.delenv("TLORA_HERE")
    done = tlora("train", "--resume", "--output", "runs", "--set", "train.steps=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_grids_fill_in_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = tmp_path / "g.yaml"
    (tmp_path / "r.yaml").write_text(TEXT)
    entry = "{name: rex, images: $DATA/rex.png, class: dog}"
    monkeypatch.setenv("RECIPES", str(tmp_path))
    grid.write_text(f"recipe: $RECIPES/r.yaml\noutput: $DATA/o\ngrid: {{concept: [{entry}]}}\n")
    read = load_grid(grid)
    assert "/d/rex.png" in str(read.grid) and read.grid.output == "/d/o"
    assert read.base["output"]["dir"] == "~/runs/rex"


# --- options --------------------------------------------------------------------------------------


@pytest.mark.full
def test_options_know_the_home_and_variables(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    adapter = run(tiny_sdxl, tmp_path, train__steps=1).adapter
    draw = ("sample", f"--adapter={adapter}", "--prompt", "V*", "--steps", 1, "--device", "cpu")
    for output, folder in (("~/a", "a"), ("$HOME/b", "b")):
        done = tlora(*draw, f"--output={output}", cwd=tmp_path)
        assert done.returncode == 0 and len(list((tmp_path / folder).glob("*.png"))) == 1
    assert not (tmp_path / "~").exists() and not (tmp_path / "$HOME").exists()
    done = tlora(*draw, "--output=$NOT_SET/c", cwd=tmp_path)
    assert done.returncode == 2 and "the variable NOT_SET" in done.stderr


def test_an_address_is_no_file(tiny_sdxl: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is an address, and pictures are read from this machine"):
        run(tiny_sdxl, tmp_path, concept__images="https://example.org/a.png")
