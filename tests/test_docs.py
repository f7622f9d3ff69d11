"""The documents: every command in them is one that the program takes, and README's path is walked.

Commands run as they are written, in a folder where the files they name lie, with a tiny model in
place of the real one and a few options added so that they take seconds.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml
from conftest import ROOT
from PIL import Image
from training_runs import draw_picture

from tlora_cli.cli.app import app, main
from tlora_cli.recipe import Recipe

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
HUB = {
    "stabilityai/stable-diffusion-xl-base-1.0": "tiny_sdxl",
    "black-forest-labs/FLUX.1-dev": "tiny_flux",
}
QUICK = {
    "train": ["train.steps=2", "train.resolution=64", "adapter.rank=4"],
    "sample": ["--width", "64", "--height", "64", "--steps", "2"],
}
"""Added to a command so that it takes seconds; `train`'s as `--set`."""


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each `tlora` command of a page."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "tlora" in words and words[0] in ("tlora", "docker") and "build" not in words:
                yield words[len(words) - words[::-1].index("tlora") :]


ALL = [pytest.param(words, id=" ".join(words)[:60]) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize("words", ALL)
def test_every_command_is_one_the_program_takes(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"tlora has no {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    try:
        command.make_context("tlora", list(words))
    except click.ClickException as error:
        # A file that the reader has and this test has not is no mistake of the page.
        assert "does not exist" in error.format_message(), error.format_message()


def test_every_file_a_page_points_to_is_there() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            if "://" not in target and not target.startswith("images/lab"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def named_recipes() -> dict[str, str]:
    """README's recipes: file name in the first line -> text."""
    found = {}
    for text in blocks(ROOT / "README.md", "yaml"):
        if match := re.match(r"# (\S+\.yaml)\n", text):
            found[match[1]] = text
    return found


def test_the_recipes_of_the_readme_are_recipes() -> None:
    assert named_recipes().keys() >= {"dog.yaml", "dog-flux.yaml"}
    for text in named_recipes().values():
        Recipe.model_validate(yaml.safe_load(text))


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    quick = QUICK.get(words[0], [])
    if words[0] == "train":
        quick = [part for setting in quick for part in ("--set", setting)]
        quick = [] if "--resume" in words else quick
    if words[0] == "sample":
        options = dict(zip(quick[::2], quick[1::2], strict=True))
        words = [
            options.pop(words[n - 1], word) if n and words[n - 1] in options else word
            for n, word in enumerate(words)
        ]
        quick = [part for pair in options.items() for part in pair]
    monkeypatch.setattr(sys, "argv", ["tlora", *words, *quick])
    status = main()
    assert status == 0, " ".join(words)


def test_the_readme_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_picture(tmp_path / "dog.jpg")
    (tmp_path / "prompts.txt").write_text("a V* in a boat\n")
    for name, text in named_recipes().items():
        text = text.replace("train: {memory: 24gb}", "train: {}")  # a quantized base needs a GPU
        for hub, tiny in HUB.items():
            text = text.replace(hub, str(request.getfixturevalue(tiny)))
        (tmp_path / name).write_text(text)
    done: list[list[str]] = []
    for words in commands(ROOT / "README.md"):
        if words[0] in ("train", "sample", "recipe") and words not in done:
            run(words, monkeypatch)
            done.append(words)
    followed = [words[0] for words in done]
    assert followed.count("train") >= 3 and followed.count("sample") >= 4
    pictures = list((tmp_path / "pictures").glob("*.png"))
    assert pictures and all(Image.open(picture).size[0] >= 64 for picture in pictures)


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_sdxl: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    from diffusers import UNet2DConditionModel

    import tlora_cli

    unet = UNet2DConditionModel.from_pretrained(tiny_sdxl, subfolder="unet")
    tlora_cli.attach(unet, "tlora", 4).save(tmp_path / "runs" / "dog" / "adapter.safetensors")
    whole = "\n".join(blocks(ROOT / "README.md", "python"))
    for hub in HUB:
        whole = whole.replace(hub, str(tiny_sdxl))
    whole = (
        whole.replace('"cuda"', '"cpu"').replace("bfloat16", "float32").replace("rank=64", "rank=4")
    )
    whole = whole.replace("min_rank=32", "min_rank=2")
    exec(compile(whole, "README.md", "exec"), {})
    assert (tmp_path / "snow.png").exists() and (tmp_path / "mine.safetensors").exists()
