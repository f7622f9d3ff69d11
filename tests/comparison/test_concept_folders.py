"""Concepts from a folder: one folder a concept, as DreamBooth's data set lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from grid_texts import RECIPE, mistakes, plan
from training_runs import draw_picture

from tlora_cli.comparison.concept_folders import class_of
from tlora_cli.comparison.grid_io import load_grid
from tlora_cli.comparison.planning import make_plan

GRID = RECIPE + "grid:\n  - {method: [lora], concept: [pip, {folder: photos, pictures: 1}]}\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, count in (("dog6", 3), ("bear_plushie", 2), (".git", 1)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            draw_picture(tmp_path / "photos" / name / f"0{number}.jpg", number)
        (tmp_path / "photos" / name / "notes.txt").write_text("no picture")
    (tmp_path / "photos" / "prompts_and_classes.txt").write_text(
        "Classes\n\nsubject_name,class\nbear_plushie,stuffed animal\n\nPrompts\nprompt_list = [\n"
        "'a {0} {1} in the jungle'.format(unique_token, class_token),\n"
    )


def test_each_folder_is_a_concept() -> None:
    cells = plan(GRID).cells
    assert [cell.concept for cell in cells] == ["pip", "bear_plushie", "dog6"]
    dog = cells[2]
    every = [f"photos/dog6/0{number}.jpg" for number in range(3)]
    assert (dog.recipe.concept.images, dog.images) == (every[:1], every)
    assert [cell.recipe.concept.class_name for cell in cells[1:]] == ["stuffed animal", "dog"]
    assert plan(GRID.replace(", pictures: 1", "")).cells[2].recipe.concept.images == every


def test_from_the_command_line() -> None:
    Path("g.yaml").write_text(GRID.replace("photos", "none"))
    file = load_grid(Path("g.yaml"), ["concept={folder: photos, pictures: 2}"])
    assert [cell.concept for cell in make_plan(file).cells] == ["bear_plushie", "dog6"]


def test_variants_take_the_first_pictures() -> None:
    made = plan(
        GRID.replace("pip, ", "")
        + 'variants:\n  one: {}\n  two: {concept.images: ["{picture1}", "{picture2}"]}\n'
    )
    images = {(c.arm.variant, c.concept): c.recipe.concept.images for c in made.cells}
    assert images["two", "dog6"] == ["photos/dog6/00.jpg", "photos/dog6/01.jpg"]
    assert images["one", "dog6"] == ["photos/dog6/00.jpg"]
    assert {len(cell.images) for cell in made.cells if cell.concept == "dog6"} == {3}


@pytest.mark.parametrize(
    ("name", "told", "wanted"),
    [
        ("dog6", {}, "dog"),
        ("bear_plushie", {}, "bear plushie"),
        ("cat2", {"cat2": "kitten"}, "kitten"),
        ("007", {}, "007"),
    ],
)
def test_classes(name: str, told: dict[str, str], wanted: str) -> None:
    assert class_of(name, told) == wanted


WRONG = {
    "folder: none": "there is no folder none; put a folder with pictures there for each concept",
    "folder: photos/dog6": "no folder is in photos/dog6; put a folder",
    "folder: photos, pictures: 3": "3 pictures are to be learned from, and photos/bear_plushie "
    "has 2; add pictures",
    "folder: photos, pictures: 0": "pictures must be a number from 1 on, got 0",
    "folder: photos, class: dog": "a folder of concepts has no class; it takes pictures alone",
}


@pytest.mark.parametrize("section", WRONG)
def test_what_is_wrong_with_a_folder(section: str) -> None:
    found = mistakes(GRID.replace("folder: photos, pictures: 1", section))
    assert [line.startswith(f"line 6: grid[0].concept[1]: {WRONG[section]}") for line in found] == [
        True
    ]


def test_a_picture_that_a_concept_lacks_and_a_folder_s_name_that_is_none() -> None:
    variant = 'variants: {three: {concept.images: ["{picture3}"]}}\n'
    [line] = mistakes(GRID.replace("pip, ", "") + variant)
    assert "the concept bear_plushie has no picture 3" in line
    Path("photos/dog6").rename("photos/my dog")
    [line] = mistakes(GRID)
    assert "'my dog' is no name; take letters, digits, _ and -" in line
