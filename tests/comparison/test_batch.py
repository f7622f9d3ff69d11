"""`tlora batch`: lists of photos, one table, resuming, and photos that fail without the others."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compare_runs import forked_main
from training_runs import draw_picture, same_tensors, tlora, write_recipe

from tlora_cli import UserError
from tlora_cli.comparison import batch as module
from tlora_cli.comparison.batch import Batch, run_batch
from tlora_cli.comparison.engine import Ended, Engine, Report
from tlora_cli.comparison.photo_list import Photo, read_photos
from tlora_cli.foundation.errors import Status

# --- lists ----------------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_a_list(tmp_path: Path) -> None:
    text = "photo,class,name\nLuna 1.jpg,cat,\nluna-1.png,,\n\ntoy:momo/1,cat,mo\n"
    for sign, mark in ((",", ""), (";", "\ufeff"), ("\t", "")):
        file = write(tmp_path / "list.csv", mark + text.replace(",", sign))
        assert read_photos(file, "dog") == [
            Photo(str(tmp_path / "Luna 1.jpg"), "cat", "luna-1"),
            Photo(str(tmp_path / "luna-1.png"), "dog", "luna-1-2"),
            Photo("toy:momo/1", "cat", "mo"),
        ]


def test_a_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        draw_picture(tmp_path / name)
    found = read_photos(tmp_path, "dog")
    assert [(Path(one.file).name, one.name) for one in found] == [("a.png", "a"), ("b.png", "b")]
    with pytest.raises(UserError, match="nothing says what the photos show"):
        read_photos(tmp_path, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the first line must name the columns, and is empty"),
        ("picture,class\n", "and is picture,class"),
        ("photo,photo\n", "and is photo,photo"),
        ("photo,class\n", "there is no photo"),
        ("photo\na.jpg\n", "line 2: nothing says what .*a.jpg shows"),
        ("photo,class\n,dog\n", "line 2: no photo is named"),
        ("photo,class\na.jpg,dog,more\n", "line 2: no photo is named, or there are more cells"),
        ("photo,class,name\na,dog,x/y\n", "line 2: the name 'x/y' may have letters"),
        ("photo,class,name\na,dog,x\nb,dog,x\n", "line 3: the name x is that of line 2"),
    ],
)
def test_mistakes_of_a_list(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read_photos(write(tmp_path / "list.csv", text), None)


def test_neither_folder_nor_list(tmp_path: Path) -> None:
    for name in ("photos", "photos.txt"):
        with pytest.raises(UserError, match="a folder of photos, or a list"):
            read_photos(tmp_path / name, "dog")


# --- what is done with them -----------------------------------------------------------------------


class Pretend(Engine):
    """Trains nothing: leaves what a run leaves, or fails by the photo's name."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def run(self, jobs: Any, report: Report) -> None:
        for job in jobs:
            report.started(job.name)
            self.did.append(job.name)
            if job.name == "stop":
                raise KeyboardInterrupt
            if job.name == "short":
                report.ended(job.name, Ended("no\nmemory", Status.NO_ROOM))
                continue
            job.folder.mkdir(exist_ok=True)
            job.log.touch()
            (job.folder / "finished").touch()
            report.ended(job.name, Ended())


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tiny_sdxl: Path, tmp_path: Path) -> Callable[..., Any]:
    from tlora_cli.recipe.reading import load_recipe

    recipe = load_recipe(write_recipe(tiny_sdxl, tmp_path))
    monkeypatch.setattr(
        module.PhotoJob, "is_finished", lambda job: (job.folder / "finished").exists()
    )

    def plan(photo: Photo, run: Path) -> Any:
        if photo.name == "bad":
            raise UserError("it is no picture", "bad.png", "leave it out", Status.MISSING)
        return recipe

    def run(*names: str, **settings: Any) -> tuple[Any, list[str], list[dict[str, str]]]:
        from rich.console import Console

        engine, folder = Pretend(), tmp_path / "out"
        photos = [Photo(f"{name}.png", settings.pop("class_name", "dog"), name) for name in names]
        console = Console(file=(tmp_path / "said").open("w"))
        try:
            done = run_batch(Batch(photos, folder, settings, plan, 1), lambda _: engine, console)
        except KeyboardInterrupt:
            done = None
        rows = list(csv.DictReader((folder / "results.csv").open()))
        return done, engine.did, rows

    return run


def test_a_bad_photo_stops_no_other_and_only_what_is_missing_is_done(
    pretend: Callable[..., Any],
) -> None:
    done, did, rows = pretend("a", "bad", "short", "b")
    assert did == ["a", "short", "b"] and done.finished == 2
    assert {row["name"]: row["state"] for row in rows} == {
        "a": "done",
        "bad": "failed",
        "short": "failed",
        "b": "done",
    }
    assert rows[1]["error"].startswith("it is no picture") and rows[2]["error"] == "no memory"
    kinds = {name: how.kind for name, how in done.failed.items()}
    assert kinds == {"bad": Status.MISSING, "short": Status.NO_ROOM}
    assert set(done.logs) == {"a", "b"}
    done, did, _ = pretend("a", "bad", "short", "b", "c")
    assert did == ["short", "c"] and done.finished == 3


def test_a_stopped_batch_has_a_table(pretend: Callable[..., Any]) -> None:
    done, did, rows = pretend("a", "stop", "b")
    assert done is None and did == ["a", "stop"]
    assert [row["state"] for row in rows] == ["done", "waiting", "waiting"]


def test_a_folder_is_one_batchs(pretend: Callable[..., Any], tmp_path: Path) -> None:
    pretend("a", set=["train.steps=3"])
    with pytest.raises(UserError, match=r"other settings: set: was .*3.*, is .*4"):
        pretend("a", set=["train.steps=4"])
    _, _, rows = pretend("a", class_name="cat", set=["train.steps=3"])
    assert 'the folder a was made for another photo: class_name: was "dog"' in rows[0]["error"]
    (tmp_path / "out" / "batch.json").unlink()
    with pytest.raises(UserError, match="is not empty and is left as it is"):
        pretend("a", set=["train.steps=3"])


# --- real ones ------------------------------------------------------------------------------------


def test_two_photos_and_a_bad_one(tiny_sdxl: Path, tmp_path: Path) -> None:
    """The adapters are those of `tlora train`, and the status says what is to be mended first."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, name in enumerate(("rex", "bello")):
        draw_picture(photos / f"{name}.png", number)
    (photos / "torn.png").write_bytes((photos / "rex.png").read_bytes()[:200])
    recipe = write_recipe(tiny_sdxl, tmp_path, train__steps=2)
    out, log = tmp_path / "out", tmp_path / "log.txt"
    words = ("batch", photos, "--class", "dog", "--config", recipe, "--output", out, "--json")
    process = forked_main(*words, log=log)
    process.join()
    objects = [json.loads(line) for line in log.read_text().splitlines()]
    assert process.exitcode == Status.MISTAKE, objects
    cells = [(one["name"], one["state"]) for one in objects if one["event"] == "cell"]
    assert cells == [
        *(("bello", "started"), ("bello", "done")),
        *(("rex", "started"), ("rex", "done")),
        *(("torn", "started"), ("torn", "failed")),
    ]
    [table] = [one for one in objects if one["event"] == "batched"]
    assert (table["finished"], table["failed"]) == (2, 1)
    text = Path(table["table"]).read_text("utf-8")
    rows = {row["name"]: row for row in csv.DictReader(text.splitlines())}
    assert rows["rex"]["adapter"] == str(out / "rex" / "run" / "adapter.safetensors")
    assert (rows["rex"]["steps"], rows["torn"]["state"]) == ("2", "failed")
    given = ("--set", f"concept.images={photos / 'rex.png'}", "--output", tmp_path / "alone")
    alone = tlora("train", recipe, *given)
    assert alone.returncode == 0, alone.stderr
    assert same_tensors(tmp_path / "alone" / "adapter.safetensors", Path(rows["rex"]["adapter"]))

    shutil.rmtree(out / "bello")
    (photos / "torn.png").unlink()
    process = forked_main(*words[:-1], log=log)
    process.join()
    assert process.exitcode == 0
    said = log.read_text()
    assert "2 photos, 1 finished, 1 to train" in said and "2 of 2 have an adapter" in said


def test_own_recipes(tmp_path: Path) -> None:
    """Without --config each has the recipe that `tlora train PHOTO` writes."""
    from tlora_cli.cli.batch import _own_recipes

    plan = _own_recipes("toy-sdxl", "paper", ["train.steps=7"])
    recipe = plan(Photo("toy:momo/1", "cat", "momo"), tmp_path / "run")
    assert (recipe.recipe, recipe.train.steps) == ("paper", 7)
    assert recipe.output.dir == str(tmp_path / "run")
    with pytest.raises(UserError, match="doesn't know the word 'dog'"):
        plan(Photo("toy:momo/1", "dog", "momo"), tmp_path / "run")
