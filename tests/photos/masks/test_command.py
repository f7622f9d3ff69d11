"""`tlora mask`: what it writes, says and refuses; and the model of its `--model`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from clipseg import write_tiny_clipseg
from PIL import Image

from tlora_cli.cli.app import main
from tlora_cli.photos.masks.finder import MaskFinder
from tlora_cli.photos.masks.overlay import overlay
from tlora_cli.photos.masks.segmenter import Segmenter
from tlora_cli.toyworld.bundle import BUNDLE

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mask(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Return a function that runs `tlora mask` in a folder with dog.png and two.png."""
    monkeypatch.chdir(tmp_path)
    values = np.full((64, 96, 3), (40, 120, 160), np.uint8)
    values[16:48, 10:40] = (220, 60, 40)
    Image.fromarray(values).save("dog.png")
    values[16:48, 56:86] = (220, 60, 40)
    Image.fromarray(values).save("two.png")

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["tlora", "mask", *map(str, arguments)])
        return main(), *capfd.readouterr()

    return call


def test_mask_and_overlay(mask: Command) -> None:
    status, said, wrong = mask("dog.png", "--out", "cut outs")
    assert (status, wrong) == (0, "")
    assert "cut outs/dog.png: 16% of dog.png, by GrabCut" in said
    assert "cut outs/dog_overlay.png" in said and "concept.masks='cut outs'" in said
    found = np.asarray(Image.open("cut outs/dog.png"))
    truth = np.zeros((64, 96), bool)
    truth[16:48, 10:40] = True
    assert found.dtype == np.uint8 and ((found > 127) == truth).mean() > 0.99
    shown = np.asarray(Image.open("cut outs/dog_overlay.png")).astype(int)
    assert shown.shape == (64, 96, 3)
    assert (shown[32, 25] == (220, 60, 40)).all(), "the subject is as it was"
    assert np.ptp(shown[5, 80]) == 0 and shown[5, 80, 0] < 60, "the rest is gray and dark"


def test_the_outline_is_white_and_large_photos_become_small_overlays() -> None:
    photo = Image.new("RGB", (3000, 1500), (10, 20, 30))
    white = Image.new("L", photo.size)
    white.paste(255, (1000, 500, 2000, 1000))
    shown = np.asarray(overlay(photo, white))
    assert shown.shape == (512, 1024, 3)
    edge = shown[171:342, 338:345].max((1, 2))
    assert (edge == 255).all()


def test_nothing_is_overwritten(mask: Command) -> None:
    assert mask("dog.png")[0] == 0
    painted = Path("masks/dog.png")
    Image.new("L", (96, 64), 255).save(painted)
    before = painted.read_bytes()
    status, _, wrong = mask("dog.png")
    assert status == 2 and "masks/dog.png" in wrong and "--out" in wrong
    assert painted.read_bytes() == before


def test_a_mask_that_is_in_doubt_is_written_and_told(mask: Command) -> None:
    status, said, wrong = mask("two.png", "dog.png")
    assert status == 2
    assert "more than one subject" in wrong and "masks/two_overlay.png" in wrong
    assert "concept.masks: masks" in wrong and "masks/dog.png" in said
    assert Path("masks/two.png").exists() and Path("masks/dog_overlay.png").exists()


def test_photos_of_one_name(mask: Command) -> None:
    Path("b").mkdir()
    Path("b/dog.png").write_bytes(Path("dog.png").read_bytes())
    assert mask("dog.png", "b/dog.png")[0] == 0
    names = sorted(file.name for file in Path("masks").iterdir())
    assert names == ["dog-2.png", "dog-2_overlay.png", "dog.png", "dog_overlay.png"]


def test_a_model_that_is_not_there_and_no_class(mask: Command) -> None:
    status, _, wrong = mask("dog.png", "--model", "nobody/nothing")
    assert status == 2 and "--class dog" in wrong
    status, _, wrong = mask("dog.png", "--model", "nobody/nothing", "--class", "dog")
    assert status == 3 and "masking checkpoint can't be loaded" in wrong
    assert "nobody/nothing" in wrong and "GrabCut needs none" in wrong
    assert not Path("masks").exists()


def test_a_base_without_a_class_or_beside_a_model(mask: Command) -> None:
    status, _, wrong = mask("dog.png", "--base", "toy-sdxl")
    assert status == 2 and "--class dog" in wrong
    both = ("--base", "toy-sdxl", "--model", "a/b", "--class", "cat")
    status, _, wrong = mask("dog.png", *both)
    assert status == 2 and "--model and --base" in wrong and "leave one out" in wrong
    status, _, wrong = mask("dog.png", "--base", "toy-sdlx", "--class", "cat")
    assert status == 3 and "toy-sdlx" in wrong and "did you mean toy-sdxl?" in wrong
    status, _, wrong = mask("toy:momo/1", "--base", "toy-sdxl", "--class", "dog")
    assert status == 2 and "doesn't know the word 'dog'" in wrong
    assert not Path("masks").exists()


def test_a_built_in_base_is_not_asked_about_photographs(mask: Command) -> None:
    assets = Path(__file__).parents[3] / "assets"
    status, _, wrong = mask(assets / "photo.jpg", "--base", "toy-sdxl", "--class", "cat")
    assert status == 2 and "is no drawing of the built-in world" in wrong
    assert not Path("masks").exists()


@pytest.mark.full
def test_a_base_helps_to_find_the_subject(mask: Command) -> None:
    """By what stands out alone, a wing and the stem of this mushroom are lost."""
    truth = np.asarray(Image.open(BUNDLE.pictures / "toto" / "mask-1.png").convert("L")) > 127

    def overlap(folder: str) -> float:
        found = np.asarray(Image.open(f"{folder}/1.png")) > 127
        return float((found & truth).sum() / (found | truth).sum())

    assert mask("toy:toto/1", "--out", "alone")[0] == 0
    own = ("--base", "toy-sdxl", "--class", "mushroom")
    status, said, _ = mask("toy:toto/1", *own, "--out", "helped")
    assert status == 0 and "by GrabCut and toy-sdxl" in said
    assert overlap("helped") > 0.85 > 0.8 > overlap("alone")
    assert mask("toy:toto/1", *own, "--out", "again")[0] == 0
    assert Path("again/1.png").read_bytes() == Path("helped/1.png").read_bytes()


def test_a_photo_that_is_not_there(mask: Command) -> None:
    status, _, wrong = mask("gone.png")
    assert status == 2 and "there is no file 'gone.png'" in wrong


def test_a_model_of_the_true_class_finds_the_word(
    mask: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny CLIPSeg of random weights: run for real; then its answer is put in by hand."""
    folder = write_tiny_clipseg(tmp_path / "clipseg")
    status, _, _ = mask("dog.png", "--model", folder, "--class", "cat", "--out", "random")
    assert status in (0, 2) and Path("random/dog.png").exists()
    asked = []

    def probabilities(self: Segmenter, picture: Image.Image, word: str) -> torch.Tensor:
        asked.append(word)
        coarse = torch.zeros(1, 1, 8, 8)  # as coarse as CLIPSeg is
        coarse[0, 0, 2:6, 5:7] = 0.8
        size = picture.height, picture.width
        return torch.nn.functional.interpolate(coarse, size, mode="bilinear")[0, 0]

    monkeypatch.setattr(Segmenter, "probabilities", probabilities)
    found = MaskFinder(str(folder), "cat").find(Path("two.png"), "two.png")
    truth = np.zeros((64, 96), bool)
    truth[16:48, 56:86] = True  # the one that the model means, to its own edges
    assert asked == ["cat"] and found.by == str(folder) and found.doubt is None
    assert ((np.asarray(found.mask) > 127) == truth).mean() > 0.99
