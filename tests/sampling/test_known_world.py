"""A photograph on a base that knows only drawings: told in init, validate, train and the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import draw_picture, recipe_values, run

from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.known_world import strangers
from tlora_cli.tools.preflight.findings import Finding
from tlora_cli.tools.preflight.image_checks import look_at_pictures
from tlora_cli.tools.preflight.new_recipe import Wishes, make_start
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.toyworld.export import write_scenes
from tlora_cli.training.report.page import page
from tlora_cli.training.report.reading import read_run

TOLD = "is no drawing of the built-in world, and toy-sdxl draws nothing else"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return draw_picture(tmp_path / "photo.png")


def test_photographs_are_told_from_drawings(photo: Path, tmp_path: Path) -> None:
    own = write_scenes(tmp_path / "drawn", 3, seed=5)
    drawings = [path for path in own if path.suffix == ".png"]
    assert len(drawings) == 3
    shipped = sorted(BUNDLE.pictures.glob("momo/[0-9].png"))
    for base in BUNDLE.bases:
        assert list(strangers(base, [*drawings, *shipped])) == []
        [told] = strangers(base, [*drawings, photo])
        assert told.startswith(f"{photo} is no drawing of the built-in world, and {base} draws")
    assert list(strangers("some/model", [photo])) == []


def test_a_bundles_own_pictures_need_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_: object) -> bool:
        raise AssertionError("looked at")

    monkeypatch.setattr("tlora_cli.toyworld.recognition.is_drawing", look)
    assert list(strangers("toy-sdxl", sorted(BUNDLE.pictures.glob("pip/[0-9].png")))) == []


def said(*found: Finding) -> list[str]:
    return [f"{one.about}: {one.text}; {one.do}" for one in found if one.level == "warning"]


def test_a_new_recipe_and_a_look_at_it_say_it(photo: Path, tmp_path: Path) -> None:
    start = make_start(Wishes([str(photo)], "cat", "toy-sdxl", "sdxl", "run"), None)
    [new] = [one for one in said(*start.reasons) if TOLD in one]
    assert "for photographs take another --base, such as" in new
    values = recipe_values(Path("toy-sdxl"), tmp_path, concept__images=str(photo))
    [old] = [one for one in said(*look_at_pictures(Recipe.model_validate(values))) if TOLD in one]
    assert "for photographs take another base, such as" in old


def test_training_and_its_report_say_it(photo: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=TOLD):
        run(
            Path("toy-sdxl"),
            tmp_path,
            concept__images=str(photo),
            concept__class="cat",
            train__steps=1,
        )
    seen = read_run(tmp_path / "run")
    assert any("toy-sdxl knows only drawings of the built-in world" in one for one in seen.notes)
    assert "knows only drawings" in page(seen)


def test_the_report_of_a_drawing_says_nothing_of_it(tmp_path: Path) -> None:
    run(Path("toy-sdxl"), tmp_path, concept__images="toy:momo/1", train__steps=1)
    assert read_run(tmp_path / "run").notes == []
