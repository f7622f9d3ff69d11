"""`tlora evaluate`: metrics with known answers, what is drawn, and through the command line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize
from training_runs import tlora

from tlora_cli.cli.app import main
from tlora_cli.recipe.models import Recipe
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.factors import draw_scene
from tlora_cli.toyworld.renderer import draw
from tlora_cli.training.loop import train

CPU = torch.device("cpu")
PIP = CONCEPTS["pip"]
TRAINING = PIP.scenes()[0]


def features(*rows: list[float]) -> torch.Tensor:
    return normalize(torch.tensor(rows).float(), dim=-1)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an adapter of the built-in world, trained for a few steps, that draws in two."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    recipe = {
        "family": "sdxl",
        "base": "toy-sdxl",
        "concept": {"images": "toy:pip/1", "class": "star"},
        "train": {"steps": 3},
        "sampling": {"steps": 2},
        "output": {"dir": str(folder), "trackers": []},
    }
    train(Recipe.model_validate(recipe))
    return folder / "adapter.safetensors"


@pytest.mark.full
def test_an_adapter_is_scored_and_a_broken_run_goes_on(adapter: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = tlora("evaluate", "--adapter", adapter, "--base-count", 2, "--output", whole)
    assert done.returncode == 0, done.stderr
    results = json.loads((whole / "results.json").read_text())["results"]
    assert set(results) >= {
        *("S*", "TS*", "ID*", "ID* (base prompt)", "leak", "copy", "clip IS", "dino IS"),
        *("clip TS (class)", "clip TS (word)", "clip drift", "dino copying"),
    }
    assert all(name in done.stdout for name in results)
    files = sorted(file.relative_to(whole) for file in (whole / "pictures").rglob("*.png"))
    said = json.loads((whole / "results.json").read_text())["learned"]
    assert (said["method"], said["class"], said["name"]) == ("tlora", "star", "pip")
    assert [Image.open(whole / one).size for one in said["reference"]] == [(64, 64)]
    assert len(files) == 2 + 50 + 16 + 16

    again = tlora("evaluate", "--adapter", adapter, "--base-count", 2, "--output", broken)
    assert again.returncode == 0
    for file in random.Random(0).sample(files, 7):
        (broken / file).unlink()
    half = broken / random.Random(1).choice([f for f in files if (broken / f).exists()])
    half.write_bytes(half.read_bytes()[:300])
    (broken / "results.json").write_text('{"results": {"TS*": 0.9')
    last = tlora("evaluate", "--adapter", adapter, "--base-count", 2, "--output", broken)
    assert last.returncode == 0, last.stderr
    for name in ("results.json", "pictures.csv", "results.md"):
        assert (broken / name).read_text() == (whole / name).read_text()
    for file in files:
        assert Image.open(broken / file).tobytes() == Image.open(whole / file).tobytes(), file

    other = tlora("evaluate", "--adapter", adapter, "--base-count", 3, "--output", broken)
    assert other.returncode == 2
    assert "holds another evaluation" in other.stderr


def test_a_folder_of_pictures_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, said = tmp_path / "pictures", {}
    pictures.mkdir()
    draw(TRAINING).image.save(pictures / "copy.png")
    said["copy.png"] = "a photo of a sks star"
    rng = random.Random(0)
    for number in range(4):
        draw(draw_scene(rng, None)).image.save(pictures / f"{number}.png")
        said[f"{number}.png"] = "a sks star somewhere else"
    table = tmp_path / "prompts.json"
    table.write_text(json.dumps(said))
    arguments = [
        *("tlora", "evaluate", "--pictures", str(pictures), "--prompts-of", str(table)),
        *("--images", "toy:pip/1", "--class", "star", "--mask", "none"),
        *("--metric", "clip=toy-clip", "--metric", "dino=toy-vit"),
        *("--output", str(tmp_path / "scores")),
    ]
    monkeypatch.setattr("sys.argv", arguments)
    assert main() == 0
    results = json.loads((tmp_path / "scores" / "results.json").read_text())["results"]
    assert results["clip IS"] == pytest.approx(1, abs=1e-3)
    assert results["clip copied"] == 0
    assert "clip diversity" in results


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an adapter or a folder"),
        (["--adapter", "none.safetensors"], "none.safetensors"),
        (["--adapter", "{adapter}", "--metric", "clop"], "clip"),
        (["--adapter", "{adapter}", "--metric", "clip=/none"], "clip checkpoint can't be loaded"),
        (["--adapter", "{adapter}", "--suite", "pets"], "live"),
        (
            ["--adapter", "{adapter}", "--prompts-file", "none.yaml"],
            "there is no such prompts file",
        ),
        (["--adapter", "{adapter}", "--output", "{full}"], "is left as it is"),
        (["--adapter", "{adapter}", "--images", "toy:pop/1"], "pip"),
        (["--pictures", "{full}", "--class", "star", "--images", "toy:pip/1"], "no PNG files"),
        (["--pictures", "{full}"], "--class"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str],
    message: str,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("keep me")
    filled = [one.format(adapter=adapter, full=full) for one in arguments]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tlora", "evaluate", *filled])
    assert main() == (3 if "can't be loaded" in message else 2)
    assert message in capsys.readouterr().err
    assert (full / "mine.txt").read_text() == "keep me"


def test_pictures_without_prompts_or_broken_ones_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    draw(TRAINING).image.save(pictures / "a.png")
    arguments = ["--pictures", str(pictures), "--class", "star", "--images", "toy:pip/1"]
    monkeypatch.setattr("sys.argv", ["tlora", "evaluate", *arguments])
    assert main() == 2
    assert "prompt is not known" in capsys.readouterr().err
    (pictures / "a.png").write_bytes(b"no picture")
    assert main() == 2
    assert "can't be read" in capsys.readouterr().err
