"""S through `tlora evaluate`: with pairs, with numbers, with neither; on tiny models and toys."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from training_runs import draw_picture, run

from tlora_cli.cli.app import main
from tlora_cli.evaluation.encoders import load_encoder
from tlora_cli.evaluation.learned import REFERENCE
from tlora_cli.recipe.models import Recipe
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.renderer import draw
from tlora_cli.toyworld.suites import contexts
from tlora_cli.training.loop import train

TOYS = ("--metric", "clip=toy-clip", "--metric", "dino=toy-vit", "--mask", "none")


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `tlora evaluate` in this process; return its status, what it printed, and its errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["tlora", "evaluate", *map(str, arguments)])
        status = main()
        return status, *capsys.readouterr()

    return call


def results_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def files_of(folder: Path) -> tuple[dict[Path, int], dict[Path, bytes]]:
    """Return when each picture was drawn, and what the kept photographs hold."""
    files = list(folder.rglob("*.png"))
    kept = {file for file in files if file.parent.name == REFERENCE}
    drawn = {file: file.stat().st_mtime_ns for file in files if file not in kept}
    return drawn, {file: file.read_bytes() for file in kept}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "pictures.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("family", ["tiny_sdxl", "tiny_flux"])
def test_a_real_family_is_measured_against_its_own_base(
    family: str, tmp_path: Path, evaluate: Any, request: pytest.FixtureRequest
) -> None:
    run(request.getfixturevalue(family), tmp_path, train__steps=1, sampling__steps=1)
    for kind in ("same", "others"):
        (tmp_path / kind).mkdir()
        for number in range(3):
            draw_picture(tmp_path / kind / f"{number}.png", seed=10 * len(kind) + number)
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps(["a V* in the snow", "a blue V*", "V* at sea"]))
    scores = tmp_path / "scores"
    common = ("--adapter", tmp_path / "run", *TOYS, "--prompts-file", prompts, "--count", 2,
              "--base-count", 1, "--output", scores)  # fmt: skip
    status, out, _ = evaluate(*common)
    assert status == 0
    assert "alike and as asked at once, needs --same, other photographs of the concept" in out
    assert "S" not in results_of(scores)["results"] and "success" not in results_of(scores)
    before, reference = files_of(scores)
    assert not any("suite_without" in str(file) for file in before)

    status, out, _ = evaluate(*common, "--same", tmp_path / "same", "--others", tmp_path / "others")
    assert status == 0
    after, reference_after = files_of(scores)
    new = after.keys() - before.keys()
    assert {file.parent.name for file in new} == {"suite_without"}
    assert len(new) == 3, "each prompt once, without the adapter"
    assert all(after[file] == before[file] for file in before), "nothing is drawn again"
    assert reference and reference_after == reference, "the photographs are written as they were"
    found = results_of(scores)
    assert list(found["results"])[:3] == ["S", "S (alike)", "S (as asked)"]
    success = found["success"]
    assert success["pictures"] == 6
    assert (success["alike"]["real pairs"], success["alike"]["mismatched pairs"]) == (6, 12)
    assert (success["as asked"]["real pairs"], success["as asked"]["mismatched pairs"]) == (3, 6)
    suite = [row for row in rows_of(scores) if row["group"] == "suite"]
    hits = [
        float(row["S likeness"]) >= success["alike"]["threshold"] - 1e-6
        and float(row["clip TS (class)"]) >= success["as asked"]["threshold"] - 1e-6
        for row in suite
    ]
    assert found["results"]["S"] == pytest.approx(sum(hits) / 6, abs=1e-6)
    assert "S: share of 6 pictures that are alike and as asked at once" in out
    assert "as asked: clip agreement of at least" in (scores / "results.md").read_text()

    numbers = ("--least-likeness", "-1", "--least-agreement", "-1")
    status, out, _ = evaluate(*common, *numbers)
    assert status == 0 and results_of(scores)["results"]["S"] == 1
    assert "alike: dino likeness of at least -1.000, as given" in out


def test_judged_and_measured_shares_stand_side_by_side(tmp_path: Path, evaluate: Any) -> None:
    values = {
        "family": "sdxl",
        "base": "toy-sdxl",
        "concept": {"images": "toy:pip/1", "class": "star"},
        "train": {"steps": 2},
        "sampling": {"steps": 2},
        "output": {"dir": str(tmp_path / "run"), "trackers": []},
    }
    train(Recipe.model_validate(values))
    scores = tmp_path / "scores"
    given = ("--same", "toy:pip", "--others", "toy:momo", "--others", "toy:luna")
    common = ("--adapter", tmp_path / "run", "--count", 1, "--base-count", 1, "--output", scores)
    status, out, _ = evaluate(*common, *given)
    assert status == 0
    assert list(results_of(scores)["results"])[:9] == [
        *("S*", "TS*", "ID*", "ID* (base prompt)", "details", "leak", "copy"),
        *("S", "S (alike)"),
    ]
    assert "S*: share of pictures in other contexts on which all that was asked" in out
    assert results_of(scores)["success"]["alike"]["real pairs"] == 6, "of four, one given twice"
    assert results_of(scores)["success"]["alike"]["mismatched pairs"] == 4 * 8
    for row in rows_of(scores):
        if row["group"] == "suite":
            assert float(row["S*"]) == float(row["TS*"]) * float(row["ID*"])
    status, out, _ = evaluate(*common)
    assert status == 0 and "needs" not in out, "the judge's share is there"
    assert "S" not in results_of(scores)["results"]


# --- pictures of any make -------------------------------------------------------------------------

PIP = CONCEPTS["pip"]
TRAINING = PIP.scenes()[0]


@pytest.fixture
def drawings(tmp_path: Path) -> tuple[object, ...]:
    """Return the arguments for a folder of drawings, of which each second shows another subject."""
    folder, said = tmp_path / "drawings", {}
    folder.mkdir()
    for number, task in enumerate(contexts(PIP, 8, TRAINING)):
        shown = TRAINING.changed(**task.asked)
        if number % 2:
            other = {"class": "car", "color": "white", "marking": "none", "feature": "none"}
            shown = shown.changed(**other, eyes="dark", shade="plain")
        draw(shown).image.save(folder / f"{number}.png")
        said[f"{number}.png"] = task.text.replace("V*", "sks star")
    (tmp_path / "said.json").write_text(json.dumps(said))
    return ("--pictures", folder, "--prompts-of", tmp_path / "said.json", "--images", "toy:pip/1",
            "--class", "star", *TOYS, "--output", tmp_path / "scores")  # fmt: skip


def captions(tmp_path: Path) -> Path:
    """Leave drawings of another thing that show what their texts say."""
    folder, said = tmp_path / "captioned", {}
    folder.mkdir()
    for number, task in enumerate(contexts(PIP, 12, TRAINING, seed=5)):
        draw(TRAINING.changed(**task.asked, color="purple")).image.save(folder / f"{number}.png")
        said[f"{number}.png"] = task.text.replace("V*", "star")
    (folder / "prompts.json").write_text(json.dumps(said))
    return folder


def test_right_pictures_of_the_right_thing_succeed(
    tmp_path: Path, drawings: tuple[object, ...], evaluate: Any
) -> None:
    pairs = ("--same", "toy:pip", "--others", "toy:casa", "--captioned", captions(tmp_path))
    status, _, _ = evaluate(*drawings, *pairs)
    assert status == 0
    rows = rows_of(tmp_path / "scores")
    assert [row["S"] for row in rows] == ["1.0", "0.0"] * 4
    assert results_of(tmp_path / "scores")["results"]["S"] == 0.5
    encoder = load_encoder("dino", "toy-vit", torch.device("cpu"), BUNDLE)
    photographs = encoder.pictures([draw(scene).image for scene in PIP.scenes()])
    [first] = encoder.pictures([Image.open(tmp_path / "drawings" / "0.png")])
    assert float(rows[0]["S likeness"]) == pytest.approx(float((photographs @ first).mean()))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "needs --same, other photographs of the concept, and --others"),
        (("--others", "toy:casa"), "needs --same, other photographs of the concept (or"),
        (("--same", "toy:pip"), "needs --others, photographs of other things"),
        (("--same", "toy:pip", "--others", "toy:casa"), "needs --captioned, pictures that show"),
        (("--least-likeness", "0.5"), "needs --captioned, pictures that show"),
        (("--least-agreement", "0.5"), "needs --same"),
    ],
)
def test_what_is_missing_is_one_line(
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
    drawings: tuple[object, ...],
    evaluate: Any,
) -> None:
    status, out, _ = evaluate(*drawings, *arguments)
    assert status == 0
    missing, *places = out.splitlines()[-3:]
    assert missing.startswith("S, the share of pictures that are alike and as asked")
    assert said in missing
    scores = tmp_path / "scores"
    assert places == [f"results: {scores}", f"page: {scores / 'index.html'}"]
    assert "S" not in results_of(tmp_path / "scores")["results"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--others", "none"), "there is no file 'none'"),
        (("--others", "toy:pip"), "photographs of the concept are among"),
        (("--same", "toy:pop"), "has no concept"),
        (("--captioned", "none"), "there is no file 'none'"),
        (("--least-likeness", "nan"), "--least-likeness"),
        (("--least-agreement", "2"), "--least-agreement"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    drawings: tuple[object, ...],
    evaluate: Any,
) -> None:
    status, _, errors = evaluate(*drawings, *arguments)
    assert status == 2
    assert message in errors
    assert not (tmp_path / "scores").exists()
