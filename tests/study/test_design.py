"""Evaluation folders -> a study: which pictures meet, what its folder tells, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from study_folders import PROMPTS, evaluation, small_study

from tlora_cli.cli.app import main
from tlora_cli.foundation.errors import UserError
from tlora_cli.study.design import make_study, read_study
from tlora_cli.study.folders import read_folder


def test_pictures_of_the_same_prompt_and_noise_meet(tmp_path: Path) -> None:
    study = small_study(tmp_path, ("tlora", "lora", "oft"), concepts=2, pairs=9)
    assert [one.name for one in study.methods] == ["tlora", "lora", "oft"]
    assert [one.name for one in study.concepts] == ["c0", "c1"]
    assert len(study.pairs) == 2 * 2 * 6  # concepts, other methods, prompts and seeds
    assert {one.prompt for one in study.pairs} == {p.replace("V*", "dog") for p in PROMPTS}
    colors = {
        Image.open(file).getpixel((0, 0)): file.relative_to(tmp_path / "scores").as_posix()
        for file in (tmp_path / "scores").rglob("*.png")
    }
    for pair in study.pairs:
        first, second = (
            colors[Image.open(study.picture(name)).getpixel((0, 0))]
            for name in (pair.first, pair.second)
        )
        concept = study.concepts[pair.concept].name
        other = study.methods[pair.other].name
        assert first.startswith(f"tlora-{concept}/") and second.startswith(f"{other}-{concept}/")
        assert first.partition("/")[2] == second.partition("/")[2]
    # A part from the front has every method and concept alike.
    assert {(one.other, one.concept) for one in study.pairs[:4]} == {(1, 0), (1, 1), (2, 0), (2, 1)}
    assert read_study(study.folder) == study


def test_a_picture_tells_nothing_of_its_method(tmp_path: Path) -> None:
    place = evaluation(tmp_path, "tlora")
    other = evaluation(tmp_path, "lora")
    about = PngInfo()
    about.add_itxt("tlora", '{"method": "tlora"}')
    for file in place.rglob("*.png"):
        Image.open(file).save(file, pnginfo=about)
    drawn = [read_folder(str(one), {}) for one in (place, other)]
    study = make_study(drawn, tmp_path / "study", 5, seed=0)
    pictures = sorted(study.folder.rglob("*.png"))
    assert len(pictures) == 13  # 6 of each method, and the photograph
    for file in pictures:
        assert len(file.stem) == 12 and not Image.open(file).info
        assert b"lora" not in file.read_bytes()


def test_a_suite_in_another_order_and_of_other_length_meets_by_prompt(tmp_path: Path) -> None:
    one = evaluation(tmp_path, "tlora", prompts=PROMPTS, count=3)
    two = evaluation(tmp_path, "lora", prompts=[*reversed(PROMPTS), "a V* at sea"], count=2)
    drawn = [read_folder(str(place), {}) for place in (one, two)]
    assert len(make_study(drawn, tmp_path / "study", 60, seed=0).pairs) == 6


def test_folders_of_earlier_versions_are_given_a_photograph(tmp_path: Path) -> None:
    places = [evaluation(tmp_path, name) for name in ("a", "b")]
    for place in places:
        results = json.loads((place / "results.json").read_text())
        del results["learned"]
        (place / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match="photograph of 'concept' is not known"):
        read_folder(str(places[0]), {})
    photo = places[0] / "reference" / "1.png"
    named = {"x": places[0], "y": places[1]}
    one, two = (read_folder(f"{n}/luna={p}", {"luna": photo}) for n, p in named.items())
    assert (one.method, one.concept, one.known_as) == ("x", "luna", "")
    study = make_study([one, two], tmp_path / "study", 60, seed=0)
    assert {pair.prompt for pair in study.pairs} == {p.replace("V*", "thing") for p in PROMPTS}


def test_pictures_that_another_program_drew(tmp_path: Path) -> None:
    place = evaluation(tmp_path, "a")
    results = json.loads((place / "results.json").read_text())
    (tmp_path / "elsewhere").mkdir()
    (place / "pictures").rename(tmp_path / "elsewhere" / "pictures")
    (place / "results.json").write_text(
        json.dumps({**results, "folder": str(tmp_path / "elsewhere")})
    )
    assert len(read_folder(str(place), {}).pictures) == 6


# --- the command ----------------------------------------------------------------------------------


def study_command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["tlora", "study", *map(str, words)])
    return main()


def test_a_study_is_made_and_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [evaluation(tmp_path, name) for name in ("tlora", "lora")]
    words = ("new", *places, "--output", tmp_path / "study", "--pairs", 4)
    assert study_command(monkeypatch, *words) == 0
    assert "6 pairs of 1 concept, tlora with lora" in capsys.readouterr().out
    before = (tmp_path / "study" / "study.json").read_bytes()
    assert json.loads(before)["pairs_each"] == 4
    assert study_command(monkeypatch, *words) == 2
    assert "is left as it is" in capsys.readouterr().err
    assert (tmp_path / "study" / "study.json").read_bytes() == before


MISTAKES: list[tuple[list[str], str]] = [
    (["new", "{a}"], "two methods at least"),
    (["new", "x={a}", "x={b}", "y={b}"], "two folders are of the method 'x' and the concept 'rex'"),
    (["new", "{a}", "{empty}"], "no finished evaluation"),
    (["new", "{a}", "none"], "no finished evaluation"),
    (["new", "x/one={a}", "y/two={b}"], "has a counterpart"),
    (["new", "{a}", "{gone}"], "a picture of the evaluation is missing"),
    (["new", "{a}", "{damaged}"], "pictures.csv can't be read"),
    (["new", "{a}", "{b}", "--reference", "none.jpg"], "no such photograph"),
    (["serve", "{empty}"], "the folder holds no study"),
    (["report", "{empty}"], "the folder holds no study"),
    (["report", "{newer}"], "another version"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[text for _, text in MISTAKES])
def test_mistakes_are_told(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    places: dict[str, Any] = {name: evaluation(tmp_path, name) for name in ("a", "b")}
    for name in ("gone", "damaged"):
        places[name] = evaluation(tmp_path, name)
    (places["gone"] / "pictures/suite/000_seed1.png").unlink()
    (places["damaged"] / "pictures.csv").write_text("group\nsuite\n")
    for name in ("empty", "newer"):
        places[name] = tmp_path / name
        places[name].mkdir()
    (places["newer"] / "study.json").write_text('{"version": 99}')
    assert study_command(monkeypatch, *(one.format(**places) for one in words)) == 2
    told = capsys.readouterr().err
    assert message in told and "fix:" in told
    assert not (tmp_path / "study").exists()
