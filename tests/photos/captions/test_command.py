"""`tlora caption`: what it writes, says and refuses; by a tiny model of the true class."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from vlm import INSTRUCTION, SIDE, TEMPLATE, teach, write_tiny_vlm

from tlora_cli.cli.app import main
from tlora_cli.photos.captions.captioner import MOST_TOKENS, Captioner, _whole, shown
from tlora_cli.recipe.sections import ConceptConfig
from tlora_cli.training.lessons import captions_of

Command = Callable[..., tuple[int, str, str]]
RED, BLUE = (220, 40, 40), (40, 40, 220)
SAID = {
    RED: "A brown fluffy dog with long ears lies on a sofa, beside a red ball. The sofa is gray.",
    BLUE: "Two dogs.",
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vlm(tmp_path_factory.mktemp("vlm"), [*SAID.values()])


@pytest.fixture(scope="module")
def model(untaught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model that says `SAID` of a red and a blue picture."""
    folder = tmp_path_factory.mktemp("taught") / "vlm"
    shutil.copytree(untaught, folder)
    lessons = [(Image.new("RGB", (96, 64), color), text) for color, text in SAID.items()]
    assert teach(folder, lessons, "dog", 80) < 0.1
    return folder


@pytest.fixture
def caption(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Return a function that runs `tlora caption` in a folder with red.png and blue.jpg."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (96, 64), RED).save("red.png")
    Image.new("RGB", (96, 64), BLUE).save("blue.jpg", quality=95)

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["tlora", "caption", *map(str, arguments)])
        return main(), *capfd.readouterr()

    return call


def test_captions_by_a_model_that_looks_at_the_picture(caption: Command, model: Path) -> None:
    status, said, wrong = caption("red.png", "blue.jpg", "--class", "dog", "--model", model)
    assert status == 0, wrong
    text = "V* lies on a sofa, beside a red ball. The sofa is gray"
    assert said.splitlines() == [
        f"red.txt: {text}",
        "blue.txt: V*",
        "next: read them, correct them in any editor; then --set concept.captions=true",
    ]
    assert Path("red.txt").read_text(encoding="utf-8") == f"{text}\n"
    assert Path("blue.txt").read_text(encoding="utf-8") == "V*\n"
    assert [line.partition(":")[0] for line in wrong.splitlines()] == ["warning"] * 2
    assert "blue.txt speaks of several" in wrong and "blue.txt says nothing but V*" in wrong
    concept = ConceptConfig.model_validate(
        {"images": "red.png", "class": "dog", "placeholder": "sks", "captions": True}
    )
    assert captions_of(Path("red.png"), concept) == [text.replace("V*", "sks dog")]


def test_a_folder_of_photos(caption: Command, model: Path) -> None:
    status, said, _ = caption(".", "--class", " dog ", "--model", model, "--device", "cpu")
    assert status == 0
    assert [line.partition(":")[0] for line in said.splitlines()] == ["blue.txt", "red.txt", "next"]


def test_nothing_is_overwritten(caption: Command, model: Path) -> None:
    Path("red.txt").write_text("mine")
    status, said, wrong = caption("blue.jpg", "red.png", "--class", "dog", "--model", model)
    assert status == 2 and not said
    assert "red.png has a text beside it already" in wrong and "remove it" in wrong
    assert Path("red.txt").read_text() == "mine" and not Path("blue.txt").exists()


def test_photos_that_would_share_a_text(caption: Command, model: Path) -> None:
    shutil.copy("red.png", "blue.png")
    status, _, wrong = caption("blue.png", "blue.jpg", "--class", "dog", "--model", model)
    assert status == 2 and "blue.png and blue.jpg would have the same text" in wrong
    assert "rename one" in wrong and not Path("blue.txt").exists()


def test_a_model_that_is_not_there(caption: Command) -> None:
    """Offline, as all tests are: its name and how to fetch it."""
    status, said, wrong = caption("red.png", "--class", "dog", "--model", "nobody/nothing")
    assert status == 3 and not said
    assert "the captioning model can't be loaded" in wrong and "where: nobody/nothing" in wrong
    assert "`hf download nobody/nothing`" in wrong and "--model" in wrong
    assert len(wrong.splitlines()) == 3 and not Path("red.txt").exists()


def test_the_model_by_default(caption: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "empty")
    status, _, wrong = caption("red.png", "--class", "dog")
    assert status == 3 and "hf download HuggingFaceTB/SmolVLM-500M-Instruct" in wrong


def test_folders_that_hold_no_such_model(caption: Command, untaught: Path, tmp_path: Path) -> None:
    Path("empty").mkdir()
    status, _, wrong = caption("red.png", "--class", "dog", "--model", "empty")
    assert status == 2 and "can't be loaded" in wrong and "hf download" not in wrong
    damaged = tmp_path / "damaged"
    shutil.copytree(untaught, damaged)
    weights = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    status, _, wrong = caption("red.png", "--class", "dog", "--model", damaged)
    assert status == 2 and "can't be loaded" in wrong
    silent = tmp_path / "silent"
    shutil.copytree(untaught, silent)
    (silent / "chat_template.jinja").unlink()
    status, _, wrong = caption("red.png", "--class", "dog", "--model", silent)
    assert status == 2 and "takes no instructions" in wrong and "SmolVLM" in wrong
    assert not Path("red.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["red.png"], ["nothing says what the photos show", "--class dog"]),
        (["red.png", "--class", " "], ["nothing says what the photos show"]),
        (["gone.png", "--class", "dog"], ["there is no file 'gone.png'", "check the name"]),
        (["none", "--class", "dog"], ["no picture is in the folder none", "put pictures"]),
        (["bad.png", "--class", "dog"], ["bad.png can't be read", "save it as"]),
        (["toy:momo/1", "--class", "cat"], ["toy:momo/1 is built in", "of your own"]),
        (["red.png", "--class", "dog", "--device", "tpu"], ["--device tpu", "cpu"]),
    ],
)
def test_mistakes(caption: Command, arguments: list[str], words: list[str]) -> None:
    """Each is told before the model is looked for, which is not there."""
    Path("none").mkdir()
    Path("bad.png").write_bytes(b"\x89PNG and no more")
    status, said, wrong = caption(*arguments, "--model", "nobody/nothing")
    assert status == 2 and not said and wrong.count("error: ") == 1
    assert "fix:" in wrong and not list(Path().glob("*.txt"))
    for word in words:
        assert word in wrong


def test_from_the_cache_offline_in_the_layout_of_the_hub(
    caption: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SmolVLM's repository has the template and the picture settings in files of their own."""
    commit = "c" * 40
    repository = tmp_path / "hub" / "models--someone--tiny"
    folder = repository / "snapshots" / commit
    shutil.copytree(model, folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (folder / "chat_template.jinja").unlink()
    whole = json.loads((folder / "processor_config.json").read_text())
    files = {
        "chat_template.json": {"chat_template": TEMPLATE},
        "preprocessor_config.json": {
            **whole.pop("image_processor"),
            "image_processor_type": "Idefics3ImageProcessor",
            "processor_class": "Idefics3Processor",
        },
        "processor_config.json": {
            "image_seq_len": whole["image_seq_len"],
            "processor_class": "Idefics3Processor",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    status, said, wrong = caption("red.png", "--class", "dog", "--model", "someone/tiny")
    assert status == 0, wrong
    assert said.startswith("red.txt: V* lies on a sofa")


# --- the model ------------------------------------------------------------------------------------


def test_the_photo_is_shown_whole_and_the_class_is_told(untaught: Path) -> None:
    captioner = Captioner(str(untaught), CPU)
    inputs = captioner.inputs(Image.new("RGB", (96, 64), RED), "teddy bear")
    assert inputs["pixel_values"].shape == (1, 1, 3, SIDE, SIDE), "no close-ups of its parts"
    said = captioner.processor.decode(inputs["input_ids"][0])
    instruction = INSTRUCTION.replace("{class}", "teddy bear")
    assert "teddy bear" in instruction and f"{instruction}<end_of_utterance>" in said
    assert said.startswith("<|im_start|>User:") and said.endswith("Assistant:")
    assert said.count("<image>") == 4


def test_the_likeliest_word_each_time(untaught: Path) -> None:
    """A loop by hand: of the last place's logits the highest, until the end or the most tokens."""
    captioner = Captioner(str(untaught), CPU)
    picture = Image.effect_noise((80, 80), 90).convert("RGB")
    inputs = captioner.inputs(picture, "dog")
    tokens = inputs["input_ids"]
    rest = {key: value for key, value in inputs.items() if key.startswith("pixel")}
    start = tokens.shape[1]
    with torch.no_grad():
        for _ in range(MOST_TOKENS):
            logits = captioner.model(input_ids=tokens, **rest).logits[:, -1]
            tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], 1)
            if tokens[0, -1] == captioner.processor.tokenizer.eos_token_id:
                break
    expected = captioner.processor.decode(tokens[0, start:], skip_special_tokens=True)
    assert len(expected) > 0
    whole = tokens.shape[1] - start < MOST_TOKENS
    assert captioner.says(picture, "dog") == (expected if whole else _whole(expected))


def test_what_broke_off_ends_at_a_sign() -> None:
    assert _whole("a dog on a sofa, in the sun, next to a wi") == "a dog on a sofa, in the sun,"
    assert _whole("a dog on a so") == "a dog on a so"


def test_large_photos_are_made_smaller() -> None:
    assert shown(Image.new("RGB", (4000, 2000))).size == (1024, 512)
    assert shown(Image.new("RGB", (300, 200))).size == (300, 200)
