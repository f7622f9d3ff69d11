"""The documents, followed: the commands of each page are run as they are written.

They run in a folder where the files they name lie, with the built-in base in place of SDXL, a tiny
one in place of FLUX, and a few options added so that they take seconds. What can't run here (a GPU,
the Hub, a cluster, minutes) is named in `NOT_RUN`; test_docs.py holds all of it against the
program's own options and recipes.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from doc_pages import ALL_LINES, PAGES, README, Line, blocks, named_files
from PIL import Image
from reference_runs import REFERENCE, Run, base_folder
from training_runs import ROOT, draw_picture

from tlora_cli.cli.app import main
from tlora_cli.foundation.bundled import model_folder

SETTINGS = ["train.steps=2", "train.resolution=64", "train.precision=fp32", "sampling.steps=2"]
"""Put over every recipe that is trained."""
OPTIONS = {
    "sample": {"--width": "64", "--height": "64", "--steps": "2"},
    "sheet": {"--width": "64", "--height": "64", "--steps": "2"},
    "evaluate": {"--count": "1", "--base-count": "1"},
    "toyworld score": {"--count": "1"},
    "toyworld gate": {"--count": "1"},
}
"""Put in place of a command's own, or added to it."""
NOT_RUN = {
    "doctor": "test_init.py follows docs/start.md",
    "init": "test_init.py follows docs/start.md",
    "validate": "test_init.py follows docs/start.md",
    "studio": "listens until it is stopped; tests/studio has a browser",
    "dog.jpg": "needs a base that knows photographs; test_from_photo.py trains a drawing",
    "caption": "needs the Hub; photos/captions/test_command.py has a tiny model",
    "--upload": "needs the Hub; test_hub.py has a server that answers as it does",
    "--model": "needs the Hub; tests/photos/masks has a tiny one",
    "batch": "minutes; comparison/test_batch.py runs one",
    "--ray": "needs a cluster; test_on_ray.py has one",
    "--quantization": "needs a GPU",
    "serve": "runs until it is stopped; tests/study/test_server.py starts it",
}
"""Words of `tlora` commands that can't run here, and why."""
RUN = (
    "mask",
    "train",
    "sample",
    "sheet",
    "recipe",
    "convert",
    "comfyui",
    "merge",
    "publish",
    "evaluate",
    "compare",
    "analyze",
    "report",
    "study",
    "toyworld",
)
"""Commands that run. A new one is added here, with what makes it quick, or to `NOT_RUN`."""


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny_flux: Path) -> Path:
    """Return a folder with all that a reader of the pages has; copy it, do not write to it."""
    folder = tmp_path_factory.mktemp("desk")
    draw_picture(folder / "dog.jpg")
    for number in (1, 2):
        for kind, seed in (("photos", number), ("masks", 9)):
            (folder / kind / "rex").mkdir(parents=True, exist_ok=True)
            ending = "jpg" if kind == "photos" else "png"
            draw_picture(folder / kind / "rex" / f"{number}.{ending}", seed)
    for kind in ("dog", "other-dogs"):
        (folder / "photos" / kind).mkdir()
        for number in range(2):
            seed = 20 + len(kind) + number
            draw_picture(folder / "photos" / kind / f"{number}.jpg", seed)
    (folder / "photos" / "rex.jpg").write_bytes((folder / "dog.jpg").read_bytes())
    (folder / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    (folder / "prompts.txt").write_text("a V* in a boat\n")
    for name in ("configs", "assets"):
        shutil.copytree(ROOT / name, folder / name)
    for place in ("checkpoint-800", "logs/checkpoint-800"):  # of the published code
        shutil.copytree(REFERENCE / "sdxl_ortho_lora_last", folder / place)
    base_folder(folder, Run("sdxl_ortho_lora_last"))
    for page in PAGES:
        for name, text in named_files(page).items():
            text = text.replace("train: {memory: 24gb}", "train: {}")  # quantized: needs a GPU
            text = text.replace("stabilityai/stable-diffusion-xl-base-1.0", "toy-sdxl")
            text = text.replace("black-forest-labs/FLUX.1-dev", str(tiny_flux))
            text = text.replace("rank: 64", "rank: 4")
            (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="session")
def trained(desk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a desk on which the runs lie that pages other than README go on from."""
    folder = tmp_path_factory.mktemp("trained") / "desk"
    shutil.copytree(desk, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tlora(["train", "--config", "dog.yaml"], patch)
        own = ("--base", str(model_folder("toy-sdxl")), "--output", "theirs.safetensors")
        words = ["convert", "runs/dog/adapter.safetensors", "--to", "lycoris", *own]
        patch.setattr(sys, "argv", ["tlora", *words])
        assert main() == 0
    shutil.copy(folder / "runs" / "dog" / "adapter.safetensors", folder / "dog.safetensors")
    grids = blocks(ROOT / "docs" / "compare.md", "yaml")
    (folder / "grid.yaml").write_text(next(text for text in grids if text.startswith("recipe:")))
    return folder


def tlora(words: list[str], patch: pytest.MonkeyPatch, number: int = 0) -> None:
    """Run a command as a user does, but for what `quick` changes, in this process."""
    patch.setattr(sys, "argv", ["tlora", *quick(words, number)])
    assert main() == 0, " ".join(words)


def quick(words: list[str], number: int) -> list[str]:
    """Return the command so that it takes seconds on this computer.

    Args:
        words: the command.
        number: of the command on its page: what pages call by one name doesn't collide.
    """
    command = next(
        (name for name in OPTIONS if words[: len(name.split())] == name.split()), words[0]
    )
    if words[0] == "train":
        resumed = "--resume" in words
        # Further than it was meant to go: by a step, not by hundreds.
        words = [re.sub(r"^train\.steps=\d+$", "train.steps=3", word) for word in words]
        own = {word.partition("=")[0] for word in words}
        added = [s for s in SETTINGS if not resumed and s.partition("=")[0] not in own]
        return words + [part for setting in added for part in ("--set", setting)]
    words = [word for word in words if word != "--open"]  # there is no one to look
    # The runs above end after two or three steps.
    words = [re.sub(r"checkpoint-000[48]00", "checkpoint-000002", word) for word in words]
    words = [re.sub(r"^step=0,.*", "step=0,2", word) for word in words]
    for option in ("--min-rank", "--rank"):  # of adapters of rank 4
        if option in words:
            words[words.index(option) + 1] = "2"
    if words[0] == "compare" and "--dry-run" not in words:
        return [*words, "--dry-run"]  # minutes; test_comparing.py runs one
    if words[0] == "comfyui":
        return ["comfyui", "ComfyUI"]  # it is not at home here
    if words[0] == "convert":
        published = "checkpoint" in words[1]
        base = "base" if published else str(model_folder("toy-sdxl"))
        rank = ["--min-rank", "4"] if published else []
        words = [*words, "--base", base, *rank]
    if words[0] in ("convert", "merge", "publish"):
        place = words.index("--output") + 1
        words[place] = f"made-{number}/{words[place]}"
    for option, value in OPTIONS.get(command, {}).items():
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words = [*words, option, value]
    return words


def runs_here(line: Line) -> bool:
    words = line.tlora
    if line.words[0] != "tlora" or words is None or not words:
        return False
    return not any(word in NOT_RUN for word in words)


HERE = [line for line in ALL_LINES if runs_here(line)]


LONG = ("cookbook", "study", "toyworld", "start")
"""Pages that take long; test_init.py follows the most of start."""


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=pytest.mark.full if page.stem in LONG else ())
        for page in dict.fromkeys(line.page for line in HERE)
    ],
)
def test_a_page_can_be_followed(
    page: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # README's reader begins with nothing but a photograph; all others have followed README.
    start = request.getfixturevalue("trained" if page != README else "desk")
    folder = tmp_path / "desk"
    shutil.copytree(start, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    done: list[list[str]] = []
    for line in HERE:
        if line.page != page:
            continue
        words = line.expanded(folder)
        words = words[words.index("tlora") + 1 :]
        assert words[0] in RUN, f"say in test_docs_followed.py how `tlora {words[0]}` is run"
        if words not in done:
            tlora(list(words), monkeypatch, len(done))
            done.append(words)
    assert done
    if page == README:
        followed = [words[0] for words in done]
        assert followed.count("train") >= 3 and followed.count("sample") >= 4
        pictures = list((folder / "pictures").glob("*.png"))
        assert pictures and all(Image.open(picture).size[0] >= 64 for picture in pictures)
