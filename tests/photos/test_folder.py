"""A folder of pictures: every one is trained on, or it is said why one is not.

Before, `a.jfif`, `b.gif`, `c.avif` and `IMG_1.HEIC` were passed over without a word.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
from drawings import KEY, drawing
from PIL import Image
from training_runs import draw_picture, recipe_values, run, tlora, write_recipe

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.pictures import read_picture
from tlora_cli.photos.finding import find_images
from tlora_cli.photos.folder import BESIDE, UNREAD
from tlora_cli.recipe.models import Recipe
from tlora_cli.training.lessons import caption_doubts, captions_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    made.mkdir()
    drawing().convert("RGB").save(made / "a.jpg")
    return made


def names(folder: Path) -> list[str]:
    return [path.name for path in find_images(str(folder), KEY)]


def test_every_spelling_of_a_known_kind_is_taken(folder: Path) -> None:
    for name in ("b.JPE", "c.jfif", "d.GIF", "e.Avif", "f.HEIC", "g.TIF"):
        shutil.copy(folder / "a.jpg", folder / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names(folder) == ["a.jpg", "b.JPE", "c.jfif", "d.GIF", "e.Avif", "f.HEIC", "g.TIF"]


@pytest.mark.parametrize("ending", sorted(UNREAD))
def test_a_picture_that_nothing_reads_is_refused_by_its_name(ending: str, folder: Path) -> None:
    (folder / f"b{ending.upper()}").write_bytes(b"whatever")
    with pytest.raises(UserError) as refused:
        names(folder)
    assert "1 picture in" in refused.value.what
    assert f"would be passed over: b{ending.upper()}" in refused.value.what


@pytest.mark.parametrize("name", ["b", "b.jpg_large", "b.download", "b.jpg.bak"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_picture_by_another_name_is_refused(name: str, kind: str, folder: Path) -> None:
    drawing().convert("RGB").save(folder / name, format=kind)
    with pytest.raises(UserError, match=rf"would be passed over: {name}\n"):
        names(folder)


@pytest.mark.parametrize("ending", [".CR2", ".psd", ".DNG"])
def test_the_raw_file_beside_its_jpeg_is_told(ending: str, folder: Path) -> None:
    (folder / f"a{ending}").write_bytes(b"II*\0")
    with pytest.warns(UserWarning, match=f"a{ending} left out, of which a picture with the same"):
        assert names(folder) == ["a.jpg"]


TOLD = {
    "a video": ("a.mov", "a.mov left out, which are no pictures"),
    "a text of Word": ("notes.docx", "notes.docx left out, which are no pictures"),
    "a hidden picture": (".b.jpg", r"\.b\.jpg left out, which are hidden"),
    "a subfolder": ("more/b.jpg", "more left out, which are folders with pictures"),
}


@pytest.mark.parametrize(("name", "told"), TOLD.values(), ids=TOLD)
def test_what_is_left_out_is_told(name: str, told: str, folder: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"something else")
    with pytest.warns(UserWarning, match=told):
        assert names(folder) == ["a.jpg"]


def test_nothing_is_said_of_what_lies_beside_pictures_anywhere(folder: Path) -> None:
    for ending in BESIDE:
        (folder / f"a{ending}").write_text("words")
    for name in (".DS_Store", "._a.jpg", "Thumbs.db", "desktop.ini", ".git/x.png", "empty/x.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("words")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names(folder) == ["a.jpg"]


def test_a_broken_picture_stops_the_run_and_is_named(tiny_sdxl: Path, folder: Path) -> None:
    (folder / "b.jpg").write_bytes((folder / "a.jpg").read_bytes()[:300])
    (folder / "c.png").write_bytes(b"")
    for name, why in (("b.jpg", "can't be read"), ("c.png", "the file is empty")):
        with pytest.raises(UserError, match=rf"{name}.*{why}"):
            run(tiny_sdxl, folder.parent, concept__images=str(folder))
        (folder / name).unlink()


@pytest.mark.full
def test_validate_init_and_train_say_it(tiny_sdxl: Path, folder: Path) -> None:
    (folder / "a.mov").write_bytes(b"video")
    here = folder.parent
    recipe = write_recipe(tiny_sdxl, here, concept__images=str(folder), train__steps=1)
    for words in (["validate", recipe], ["train", "--config", recipe],
                  ["init", folder, "--class", "cat", "--base", "toy-sdxl", "--yes",
                   "--output", here / "i.yaml"]):  # fmt: skip
        done = tlora(*words, cwd=here)
        said = done.stdout + done.stderr
        assert done.returncode == 0 and said.count("a.mov left out, which are no pictures") == 1


def test_an_animation_says_that_its_first_picture_is_used(folder: Path) -> None:
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    frames[0].save(folder / "b.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"b\.gif has 2 pictures, and the first is used"):
        assert read_picture(folder / "b.gif", KEY, "RGB").getpixel((5, 5)) == (255, 0, 0)


# --- texts beside pictures ------------------------------------------------------------------------


def test_texts_that_nobody_reads_are_told(tiny_sdxl: Path, tmp_path: Path) -> None:
    picture = draw_picture(tmp_path / "photo.png")
    values = recipe_values(tiny_sdxl, tmp_path)

    def concept(captions: bool) -> Recipe:
        return Recipe.model_validate(
            values | {"concept": values["concept"] | {"captions": captions}}
        )

    assert not caption_doubts([picture], concept(True).concept)
    (tmp_path / "photo.txt").write_text("a V*")
    [unused] = caption_doubts([picture], concept(False).concept)
    assert "photo.txt" in unused and "concept.captions: true" in unused
    assert not caption_doubts([picture], concept(True).concept)
    (tmp_path / "photo2.txt").write_text("a V*")
    (tmp_path / "photo.caption").write_text("a V*")
    [lost] = caption_doubts([picture], concept(True).concept)
    assert "photo.caption, photo2.txt" in lost


def test_a_text_in_capitals_is_read(tiny_sdxl: Path, tmp_path: Path) -> None:
    picture = draw_picture(tmp_path / "PHOTO.png")
    (tmp_path / "PHOTO.TXT").write_text("a V* in the snow")
    recipe = Recipe.model_validate(recipe_values(tiny_sdxl, tmp_path, concept__captions=True))
    assert captions_of(picture, recipe.concept) == ["a sks dog in the snow"]
