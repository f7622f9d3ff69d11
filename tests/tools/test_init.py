"""`tlora init`: recipes that pass `tlora validate`, made by flags or on a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doc_pages import lines
from PIL import Image
from training_runs import ROOT, draw_picture, run

from tlora_cli.cli.app import main
from tlora_cli.foundation.errors import UserError
from tlora_cli.photos.finding import name_of
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.reading import load_recipe, parse_recipe
from tlora_cli.tools.preflight import fitting
from tlora_cli.tools.preflight import new_recipe as start_module
from tlora_cli.tools.preflight.fitting import Room
from tlora_cli.tools.preflight.memory import MemoryPlan
from tlora_cli.tools.preflight.new_recipe import Start, Wishes, choose_base, make_start

GIB = 2**30
LARGE = Room(80 * GIB, "large")
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def tlora(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["tlora", *map(str, words)])
    return main()


def start(*images: Path | str, room: Room = LARGE, **wishes: str) -> Start:
    given = {"class_name": "dog", "base": "toy-sdxl", "family": "sdxl", "name": "dog", **wishes}
    return make_start(Wishes([str(image) for image in images], **given), room)


# --- the command ------------------------------------------------------------------------------


def test_a_new_recipe_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tlora(monkeypatch, "init", "toy:momo/1", "--class", "cat", "--yes") == 0
    printed = capsys.readouterr().out
    assert "base             toy-sdxl: no card is here" in printed
    assert "wrote momo.yaml\nnext: tlora validate momo.yaml\n" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["momo.yaml"]
    assert tlora(monkeypatch, "validate", "momo.yaml") == 0
    assert "no problems" in capsys.readouterr().out
    # What it leaves out are the settings of the built-in base, as the shipped recipe has them, but
    # for those of `recipe: photo`.
    shipped = load_recipe(ROOT / "configs" / "toy_sdxl.yaml", ["recipe=photo"])
    made = load_recipe(Path("momo.yaml"))
    assert (made.adapter, made.sampling) == (shipped.adapter, shipped.sampling)
    rate = shipped.train.optimizer.model_copy(update={"lr": 1e-3})  # of `photo` on this base
    assert (made.train.optimizer, made.train.steps) == (rate, 1300)
    assert made.recipe == "photo" and made.concept.scenes is not None


def test_the_page_can_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/start.md, but for a card that is planned for, which takes long, and the trial."""
    draw_picture(Path("dog.jpg"))
    page = lines(ROOT / "docs" / "start.md")
    words = [line.tlora for line in page if line.tlora is not None]
    assert len(words) >= 6
    followed = [w for w in words if not {"--card", "--deep"} & set(w) and w[0] != "train"]
    assert [w[0] for w in followed] == ["doctor", "init", "validate", "init"]
    for command in followed:
        assert tlora(monkeypatch, *command) == 0, command


def test_a_card_elsewhere_is_planned_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("toy:momo/1", "--class", "cat", "--base", "toy-sdxl", "--card", "24gb", "--yes")
    assert tlora(monkeypatch, "init", *words) == 0
    printed = capsys.readouterr().out
    margin = "5% left to screens and other programs"
    assert f"of 25.8 GB (the card of --card, {margin}): nothing need be saved" in printed
    assert "next: tlora validate momo.yaml --card 24gb\n" in printed


def test_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, option in (("momo.yaml", ()), ("own.yaml", ("--output", "own.yaml"))):
        Path(name).write_text("mine")
        words = ("init", "toy:momo/1", "--class", "cat", "--yes", *option)
        assert tlora(monkeypatch, *words) == 2
        error = capsys.readouterr().err
        assert f"there is a file of that name already\n  where: {name}" in error
        assert Path(name).read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["toy:momo/1"], "nothing says what the pictures show"),
        (["toy:momo/1", "--class", " "], "nothing says what the pictures show"),
        (["toy:none", "--class", "cat"], "no concept 'none'"),
        (["none.jpg", "--class", "cat"], "there is no file 'none.jpg'"),
        (["toy:momo/1", "--class", "cat", "--family", "sd"], "--family sd is not known"),
        (["toy:momo/1", "--class", "cat", "--family", "flux", "--base", "toy-sdxl"],
         "toy-sdxl is sdxl, not flux"),
        (["toy:momo/1", "--class", "cat", "--base", "none"], "base not found: none"),
        (["toy:momo/1", "--class", "cat", "--card", "x"], "--card x is no size of a card"),
    ],
)  # fmt: skip
def test_mistakes(
    words: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert tlora(monkeypatch, "init", *words) == (3 if "base not found" in text else 2)
    error = capsys.readouterr().err
    assert text in error and "  fix:   " in error
    assert not list(tmp_path.iterdir())


class Terminal:
    """A command on a terminal of its own, as a person has it."""

    def __init__(self, *words: str) -> None:
        self.screen, inside = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tlora_cli", *words], stdin=inside, stdout=inside, stderr=inside,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
        )  # fmt: skip
        os.close(inside)
        self.text = ""

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Read until `text` comes up after all that was waited for before."""
        end, seen = time.monotonic() + seconds, len(self.text)
        while text not in self.text[seen:]:
            assert time.monotonic() < end, f"no {text!r} in:\n{self.text}"
            if select.select([self.screen], [], [], 1)[0]:
                self.text += os.read(self.screen, 4096).decode()

    def answer(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def end(self) -> int:
        status = self.process.wait(60)
        os.close(self.screen)
        return status


def test_on_a_terminal_it_asks(tmp_path: Path) -> None:
    terminal = Terminal("init", "toy:momo/1")
    terminal.wait_for("What is it, in a word (dog, teapot): ")
    terminal.answer("\n")  # nothing is no answer
    terminal.wait_for("in a word (dog, teapot): ")
    terminal.answer("cat\n")
    terminal.wait_for("a folder) [toy-sdxl]: ")
    terminal.answer("\n")
    terminal.wait_for("Name of the run [momo]: ")
    terminal.answer("my momo\n")
    terminal.wait_for("next: tlora validate 'my momo.yaml'")
    assert terminal.end() == 0
    made = load_recipe(tmp_path / "my momo.yaml")
    assert (made.base.model, made.concept.class_name) == ("toy-sdxl", "cat")
    assert made.output.dir == "runs/my momo"


def test_ctrl_c_at_a_question_writes_nothing(tmp_path: Path) -> None:
    terminal = Terminal("init", "toy:momo/1")
    terminal.wait_for("What is it")
    while terminal.process.poll() is None:  # one that comes before Python waits for a key is lost
        terminal.process.send_signal(signal.SIGINT)
        time.sleep(1)
    assert terminal.end() == 130
    assert not list(tmp_path.iterdir())


# --- the choices ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        (("", "", "the card of --card"), (SDXL, "sdxl")),
        (("", "", None), ("toy-sdxl", "sdxl")),
        (("", "flux", None), ("black-forest-labs/FLUX.1-dev", "flux")),
        ((SDXL, "", None), (SDXL, "sdxl")),
        (("toy-sdxl", "", "the card of --card"), ("toy-sdxl", "sdxl")),
        (("my/own", "flux", "the card of --card"), ("my/own", "flux")),
    ],
)
def test_the_base(given: tuple[str, str, str | None], chosen: tuple[str, str]) -> None:
    assert choose_base(*given)[:2] == chosen


def test_the_reason_names_the_card_that_was_meant() -> None:
    assert choose_base("", "", "the card of --card")[2] == "for photographs, on the card of --card"
    assert choose_base("", "", None)[2].startswith("no card is here")


def test_a_folder_tells_its_family(tiny_flux: Path, tmp_path: Path) -> None:
    assert choose_base(str(tiny_flux), "", None)[:2] == (str(tiny_flux), "flux")
    with pytest.raises(UserError, match="not found"):
        choose_base(str(tmp_path / "none"), "", None)


@pytest.mark.parametrize(
    ("image", "name"),
    [("a/My Dog (1).JPG", "my-dog-1"), ("toy:momo/1", "momo"), ("ñ.png", "concept")],
)
def test_names(image: str, name: str) -> None:
    assert name_of(image) == name


@pytest.mark.parametrize(
    ("size", "side"),
    [((4000, 1024), 1024), ((1000, 600), 768), ((300, 400), 512), ((9000, 1000), 1024)],
)
def test_a_small_picture_is_not_blown_up(
    size: tuple[int, int], side: int, tiny_sdxl: Path, tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    Image.open(draw_picture(file)).resize(size).save(file)
    made = start(file, base=str(tiny_sdxl))
    assert made.recipe.train.resolution == side
    assert made.recipe.adapter.rank == 32  # layers of the tiny base are 48 wide
    warned = " ".join(one.text for one in made.reasons if one.level == "warning")
    assert ("is enlarged to 440 x 592" in warned) == (size == (300, 400))
    assert ("more than 4 times as long as wide: 56% is cut" in warned) == (size[0] == 9000)


@pytest.mark.parametrize("recipe", ["photo", "paper"])
def test_a_photo_keeps_its_shape_but_for_what_was_published(
    recipe: str, tiny_sdxl: Path, tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    Image.open(draw_picture(file)).resize((1400, 1800)).save(file)
    made = start(file, base=str(tiny_sdxl), recipe=recipe)
    assert made.recipe.train.crop == ("none" if recipe == "photo" else "center")
    assert ("\n  crop: none   # the photo keeps its shape" in made.text) == (recipe == "photo")
    told = " ".join(one.text for one in made.reasons)
    wanted = "trained in its own shape, at 904 x 1160" if recipe == "photo" else "center square is"
    assert wanted in told


def test_it_fits_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved is what must be: nothing, then a preset, then what no preset has."""
    plans: dict[str, MemoryPlan] = {}

    def plan_once(recipe: Recipe, room: Room) -> MemoryPlan:
        key = recipe.train.model_copy(update={"memory": None}).model_dump_json()
        return plans.setdefault(key, plans.get(key) or fitting.plan_for(recipe, room))

    monkeypatch.setattr(start_module, "plan_for", plan_once)
    picture = "toy:momo/1"
    plain = start(picture, class_name="cat")
    assert plain.recipe.train.memory is None and "nothing need be saved" in plain.reasons[-1].text
    just_less = Room(int((plan_once(plain.recipe, LARGE).card - 1) / 0.95), "small")
    saving = start(picture, class_name="cat", room=just_less)
    assert saving.recipe.train.memory == "12gb" and saving.recipe.train.gradient_checkpointing
    assert just_less.fits(plan_once(saving.recipe, just_less))
    even_less = Room(int((plan_once(saving.recipe, LARGE).card - 1) / 0.95), "smaller")
    turns = start(picture, class_name="cat", room=even_less)
    assert turns.recipe.train.memory == "8gb" and turns.recipe.train.offload
    assert even_less.fits(plan_once(turns.recipe, even_less))
    least = Room(int((plan_once(turns.recipe, LARGE).card - 1) / 0.95), "least")
    most = start(picture, class_name="cat", room=least)
    assert most.recipe.train.memory is None
    assert most.recipe.train.quantization == "nf4"
    assert least.fits(plan_once(most.recipe, least))
    never = start(picture, class_name="cat", room=Room(GIB // 4, "none"))
    assert never.recipe == plain.recipe and never.reasons[-1].level == "warning"


def test_a_card_elsewhere(tiny_sdxl: Path, tmp_path: Path) -> None:
    file = draw_picture(tmp_path / "dog.png", size=1100)
    made = start(file, base=str(tiny_sdxl), room=Room(8 * GIB, "main memory", is_card=False))
    assert made.reasons[-1].level == "warning" and made.reasons[-1].do.endswith("--card 24gb, say")


def test_any_name_of_a_picture_survives_the_file(tmp_path: Path) -> None:
    names = ["a: b#c.png", "it's.png", "- x.png", "ü\u2028n.png", "{a}.png", '"q".png', "a\\b.png"]
    files = [draw_picture(tmp_path / name, seed) for seed, name in enumerate(names)]
    made = start(*files, name="c: #d")
    assert made.recipe.concept.images == [str(file) for file in files]
    assert parse_recipe(made.text) == made.recipe
    assert made.recipe.output.dir == "runs/c: #d"


def test_a_run_that_is_there_keeps_its_folder(tiny_sdxl: Path, tmp_path: Path) -> None:
    done: Any = run(tiny_sdxl, tmp_path, train__steps=1, output__dir="runs/dog")
    assert done.adapter is not None
    made = start(draw_picture(tmp_path / "dog.png"))
    assert made.recipe.output.dir == "runs/dog-2"


def test_a_word_that_the_built_in_base_does_not_know(tmp_path: Path) -> None:
    file = draw_picture(tmp_path / "dog.png")
    [told] = [one for one in start(file).reasons if one.about == "class"]
    assert "doesn't know the word dog" in told.text and "cat" in told.do


def test_a_dark_picture(tmp_path: Path) -> None:
    dark = tmp_path / "dark.png"
    Image.fromarray(np.full((64, 64, 3), 5, np.uint8)).save(dark)
    made = start(dark, class_name="cat")
    assert "is very dark" in " ".join(one.text for one in made.reasons)
    assert not [one for one in made.reasons if one.about == "class"]
