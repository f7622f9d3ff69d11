"""The documents: every command, recipe, link and message in them is one that there is.

Nothing is run here but the Python of README; test_docs_followed.py runs the commands.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from doc_pages import ALL_LINES, PAGES, README, Line, blocks, named_files
from training_runs import ROOT

from tlora_cli.cli.commands import app
from tlora_cli.cli.studio import PORT
from tlora_cli.comparison.grid_io import load_grid
from tlora_cli.comparison.planning import make_plan
from tlora_cli.recipe.defaults import merged
from tlora_cli.recipe.reading import load_recipe, parse_recipe
from tlora_cli.recipe.yaml_text import parse_yaml
from tlora_cli.training.run_folder import FREE_TO_CHANGE

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
COOKBOOK, TROUBLE = ROOT / "docs" / "cookbook.md", ROOT / "docs" / "troubleshooting.md"
TLORA = [line for line in ALL_LINES if line.tlora is not None]


def name_of(line: Line) -> str:
    return f"{line.page.stem}: {line.text[:70]}"


# --- commands -------------------------------------------------------------------------------------


def test_the_commands_are_found() -> None:
    assert len(TLORA) > 50 and len({line.page for line in TLORA}) >= 7
    assert {line.words[0] for line in ALL_LINES} >= {"tlora", "docker", "pip", "hf", "python"}


@pytest.mark.parametrize("line", TLORA, ids=name_of)
def test_every_command_is_one_the_program_takes(line: Line) -> None:
    command: Any = typer.main.get_command(app)
    words = line.tlora or []
    while hasattr(command, "commands"):
        assert words and words[0] in command.commands, f"tlora has no {words[:1]}"
        command, words = command.commands[words[0]], words[1:]
    try:
        command.make_context("tlora", list(words))
    except click.ClickException as error:
        # A file that the reader has and this test has not is no mistake of the page.
        assert "does not exist" in error.format_message(), error.format_message()


def options(words: list[str], name: str) -> list[str]:
    return [words[n + 1] for n, word in enumerate(words[:-1]) if word == name]


RECIPES = {
    name: text for page in PAGES for name, text in named_files(page).items() if "family:" in text
}
SETTING = [
    line for line in TLORA if (line.tlora or [""])[0] in ("train", "recipe") and line.tlora[1:]
]


@pytest.mark.parametrize("line", SETTING, ids=name_of)
def test_every_recipe_of_a_command_is_right(line: Line) -> None:
    words = line.tlora or []
    files = options(words, "--config") or [w for w in words if w.endswith(".yaml")]
    if not files and "--resume" not in words:
        assert words == ["recipe", "schema"] or "--class" in words  # photographs need no recipe
        return
    # What a shell would put in is points of a schedule.
    values = [re.sub(r"\$\(python \S+\)", "[[0, 8]]", v) for v in options(words, "--set")]
    for file in files or ["dog.yaml"]:
        text = RECIPES[file] if file in RECIPES else (ROOT / file).read_text("utf-8")
        parse_recipe(text, file, values)


def _hf(line: Line) -> None:
    from huggingface_hub.cli.hf import app as hub

    command: Any = hub
    words = line.words[1:]
    while isinstance(command, click.Group):
        _, command, words = command.resolve_command(click.Context(command), words)
    command.make_context("hf", list(words))


def _pip(line: Line) -> None:
    words = line.words
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert words[1] == "install"
    assert all((ROOT / file).exists() for file in options(words, "-c"))
    for word in words[2:]:
        if extra := re.fullmatch(r"(?:\.|tlora)\[(\w+)\]", word):
            assert extra[1] in project["optional-dependencies"], word
        if "==" in word:
            assert word in pins, f"{word} is not the tested version"


def _docker(line: Line) -> None:
    words = line.words
    assert words[1] in ("build", "run")
    text = (ROOT / "Dockerfile").read_text("utf-8")
    for mount in options(words, "-v"):
        assert re.search(rf"(WORKDIR|VOLUME) {mount.rpartition(':')[2]}$", text, re.MULTILINE)
    for secret in options(words, "--secret"):
        assert f"type=secret,{secret.partition(',')[0]}," in text
    if words[1] == "run":
        assert words.index("tlora") > words.index("--gpus")


def _python(line: Line) -> None:
    words = line.words
    if words[1] == "-c":
        compile(words[2], "-c", "exec")
    elif words[1] != "-m":
        known = {name for page in PAGES for name in named_files(page)}
        assert words[1] in known or (ROOT / words[1]).is_file(), words[1]


def _script(line: Line) -> None:
    assert (ROOT / line.words[0]).is_file(), line.words[0]


def _pytest(line: Line) -> None:
    assert all((ROOT / word).is_file() for word in line.words[1:] if not word.startswith("-"))


def _sudo(line: Line) -> None:
    words = line.words[1:]
    assert words[0] == "./scripts/build_image" and (ROOT / words[0]).is_file()
    _docker(Line(line.page, shlex.join(["docker", "build", *words[1:]])))


OTHERS: dict[str, Callable[[Line], None]] = {
    "docker": _docker,
    "hf": _hf,
    "pip": _pip,
    "pytest": _pytest,
    "python": _python,
    "sudo": _sudo,
    "./scripts/demo": _script,
    "./scripts/test": _script,
}
PLAIN = ("git", "cd", "python3", ".")
"""Of the shell, in the lines that install."""


@pytest.mark.parametrize(
    "line", [line for line in ALL_LINES if line.words[0] != "tlora"], ids=name_of
)
def test_every_other_command_is_checked(line: Line) -> None:
    program = line.words[0]
    if program in PLAIN:
        assert line.page == README
    elif program == "ssh":
        assert line.words[:3] == ["ssh", "-L", f"{PORT}:127.0.0.1:{PORT}"]
    else:
        assert program in OTHERS, f"say in test_docs.py how `{program}` is checked"
        OTHERS[program](line)


# --- recipes and grids ----------------------------------------------------------------------------


def test_the_readme_says_what_to_do_on_windows() -> None:
    install = README.read_text(encoding="utf-8").partition("## Install")[2].partition("\n## ")[0]
    assert "On Windows, use WSL2" in install


def test_the_recipes_of_the_readme_are_recipes() -> None:
    assert named_files(README).keys() >= {"dog.yaml", "dog-flux.yaml"}
    for name in ("dog.yaml", "dog-flux.yaml"):
        parse_recipe(named_files(README)[name], name)


YAML = [pytest.param(page, text, id=page.stem) for page in PAGES for text in blocks(page, "yaml")]


@pytest.mark.parametrize(("page", "text"), YAML)
def test_every_piece_of_a_recipe_fits_in(
    page: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe or grid stands for itself; a piece goes into README's recipe, or the page's grid."""
    data = parse_yaml(text).data
    file = tmp_path / "piece.yaml"
    if "grid" in data:
        grids = [parse_yaml(block).data for block in blocks(page, "yaml") if "recipe:" in block]
        file.write_text(json.dumps({**grids[0], **data}))  # JSON is YAML
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "rex.jpg").touch()
        (tmp_path / "photos" / "dog6").mkdir()
        (tmp_path / "photos" / "dog6" / "00.jpg").touch()
        monkeypatch.chdir(tmp_path)
        assert make_plan(load_grid(file)).cells
        return
    family = data.get("family", "sdxl")
    whole = parse_yaml(RECIPES["dog.yaml" if family == "sdxl" else "dog-flux.yaml"]).data
    file.write_text(json.dumps(merged(whole, data)))
    load_recipe(file)


def test_the_cookbook_says_what_may_change_in_a_run() -> None:
    text = " ".join(COOKBOOK.read_text("utf-8").split())
    said = re.search(r"don't depend on may change: (.+?)\.\s", text)
    assert said and tuple(re.findall(r"`([\w.]+)`", said[1])) == FREE_TO_CHANGE


# --- links ----------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headlines, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles}


@pytest.mark.parametrize("page", [*PAGES, CONTRIBUTING], ids=lambda page: page.stem)
def test_every_place_a_page_points_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        name, _, anchor = target.partition("#")
        if "://" in target or name.startswith("images/lab"):
            continue
        there = page.parent / name if name else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", README.read_text("utf-8")))
    assert {page.name for page in PAGES if page != README} <= linked


# --- messages -------------------------------------------------------------------------------------


@cache
def messages() -> list[str]:
    """Return every text of the program but docstrings, with `...` for what is filled in."""
    found = []
    for path in sorted((ROOT / "tlora_cli").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        plain = {id(s.value) for s in ast.walk(tree) if isinstance(s, ast.Expr)}
        inside = {id(v) for j in ast.walk(tree) if isinstance(j, ast.JoinedStr) for v in j.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(
                        str(v.value) if isinstance(v, ast.Constant) else "..." for v in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and id(node) not in plain | inside:
                found += [node.value] if isinstance(node.value, str) else []
    return found


HEADLINES = re.findall(r"^### `(.+)`$", TROUBLE.read_text("utf-8"), re.MULTILINE)


def test_messages_are_found() -> None:
    assert len(HEADLINES) >= 30 and len(messages()) > 1000
    assert "the GPU ran out of memory" in messages()


@pytest.mark.parametrize("headline", HEADLINES)
def test_every_headline_is_a_message_of_the_program(headline: str) -> None:
    assert len(re.sub(r"\W", "", headline)) >= 8
    assert any(text.startswith(headline) for text in messages())


# --- Python ---------------------------------------------------------------------------------------


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_sdxl: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    from diffusers import UNet2DConditionModel

    import tlora_cli

    unet = UNet2DConditionModel.from_pretrained(tiny_sdxl, subfolder="unet")
    tlora_cli.attach(unet, "tlora", 4).save(tmp_path / "runs" / "dog" / "adapter.safetensors")
    whole = "\n".join(blocks(README, "python"))
    whole = whole.replace("stabilityai/stable-diffusion-xl-base-1.0", str(tiny_sdxl))
    whole = (
        whole.replace('"cuda"', '"cpu"').replace("bfloat16", "float32").replace("rank=64", "rank=4")
    )
    whole = whole.replace("min_rank=32", "min_rank=2")
    exec(compile(whole, "README.md", "exec"), {})
    assert (tmp_path / "snow.png").exists() and (tmp_path / "mine.safetensors").exists()
