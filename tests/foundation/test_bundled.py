"""What the program brings along is found by name, checked before use, and never guessed at."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_runs import write_recipe

from tlora_cli.cli.app import main
from tlora_cli.families.loading import Base
from tlora_cli.foundation import bundled
from tlora_cli.foundation.errors import Status, UserError, known_names
from tlora_cli.photos.finding import find_images
from tlora_cli.photos.training_images import load_training_images
from tlora_cli.recipe.models import Recipe
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.toyworld.concepts import CONCEPTS

Refuse = Callable[..., str]

SHIPPED = ("toy-sdxl", "toy-flux", "toy-clip", "toy-vit", "judge")
MAX_BYTES = 40_000_000
OF_A_BASE = ("TS* seen", "TS* held-out", "VAE keeps class", "ID* before adapting", "ID* by chance")
STATED = {
    "toy-sdxl": OF_A_BASE,
    "toy-flux": OF_A_BASE,
    "toy-clip": ("top-1",),
    "toy-vit": ("AUC",),
    "judge": ("class read right", "marking read right"),
}
"""Model -> figures that its card must state."""


@pytest.fixture
def refuse(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Refuse:
    """Return a function that runs `tlora` with arguments that must fail, and gives its message."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, status: Status = Status.MISTAKE) -> str:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["tlora", *map(str, arguments)])
        ended = main()
        _, err = capfd.readouterr()
        assert ended == status, err
        assert "Traceback" not in err
        return err[err.index("error: ") :]

    return run


# --- names ----------------------------------------------------------------------------------------


def test_an_unknown_base_lists_the_known_ones(refuse: Refuse, tmp_path: Path) -> None:
    message = refuse(
        "train", "--config", write_recipe(Path("toy-sxdl"), tmp_path), status=Status.MISSING
    )
    assert "base not found: toy-sxdl" in message
    assert "base.model" in message
    assert "did you mean toy-sdxl? known: toy-sdxl" in message
    message = refuse(
        "train", "--config", write_recipe(Path("unheard"), tmp_path), status=Status.MISSING
    )
    assert "known: toy-sdxl" in message
    assert "did you mean" not in message


def test_an_unknown_concept_lists_the_known_ones(refuse: Refuse, tmp_path: Path) -> None:
    concept = {"images": "toy:pipp/1", "class": "star"}
    message = refuse("train", "--config", write_recipe(Path("toy-sdxl"), tmp_path, concept=concept))
    assert "the built-in world has no concept 'pipp'" in message
    assert "concept.images" in message
    assert "did you mean pip? known: " in message
    assert all(name in message for name in CONCEPTS)
    assert not (tmp_path / "run" / "adapter.safetensors").exists()


def test_an_unknown_picture_says_how_many_there_are(refuse: Refuse, tmp_path: Path) -> None:
    concept = {"images": "toy:pip/9", "class": "star"}
    message = refuse("train", "--config", write_recipe(Path("toy-sdxl"), tmp_path, concept=concept))
    assert "the concept pip has no picture '9'" in message
    assert "its pictures are 1 to 4" in message


COMMANDS: dict[str, tuple[list[str], str]] = {
    "gate": (["gate", "--base", "toy-sdxll"], "did you mean toy-sdxl? known: toy-sdxl"),
    "draw": (["draw", "--concept", "mom"], "did you mean momo? known: pip, momo"),
    "list": (["list", "--class-of", "unheard"], "known: pip, momo"),
    "score": (["score", "--adapter", "a", "--concept", "finnn"], "did you mean finn? known: pip"),
    "picture": (
        ["score", "--adapter", "a", "--concept", "pip", "--picture", "9"],
        "the concept pip has no picture 9",
    ),
    "twice": (
        ["score", "--adapter", "a/adapter.pt", "--adapter", "b/a/adapter.pt", "--concept", "pip"],
        "name them: --adapter NAME=FILE",
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_commands_refuse_unknown_names(refuse: Refuse, case: str) -> None:
    arguments, words = COMMANDS[case]
    assert words in refuse("toyworld", *arguments)


def test_drawings_never_replace_a_folder(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert "mine exists already" in refuse("toyworld", "draw", "--output", "mine")
    assert not list((tmp_path / "mine").iterdir())


def test_known_names_suggest_only_what_is_close() -> None:
    assert known_names("Pipp", ["pip", "momo"]) == "did you mean pip? known: pip, momo"
    assert known_names("xyz", ["pip", "momo"]) == "known: pip, momo"


# --- pictures by name -----------------------------------------------------------------------------


def test_pictures_are_found_by_name() -> None:
    folder = BUNDLE.pictures / "pip"
    assert find_images("toy:pip", "concept.images") == [folder / f"{n}.png" for n in range(1, 5)]
    assert find_images("toy:pip/2", "concept.images") == [folder / "2.png"]
    assert find_images(["toy:pip/3", "toy:momo/1"], "concept.images") == [
        folder / "3.png",
        BUNDLE.pictures / "momo" / "1.png",
    ]
    assert find_images("toy:pip/2", "concept.masks") == [folder / "mask-2.png"]


def test_pictures_come_with_their_masks() -> None:
    for image in load_training_images("toy:luna", "toy:luna", 64):
        assert image.pixels.shape == (3, 64, 64)
        assert image.mask is not None
        assert 0.05 < image.mask.float().mean() < 0.5


# --- checksums ------------------------------------------------------------------------------------


@pytest.fixture
def intact(tmp_path: Path) -> Path:
    """Return the folder of a small fake model."""
    folder = tmp_path / "models" / "toy-sdxl"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    (folder / "README.md").write_text("# a fake\n")
    bundled.write_checksums(folder)
    return folder


def flip_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def sums(folder: Path) -> dict[str, str]:
    lines = (folder / bundled.CHECKSUMS).read_text().splitlines()
    return {name: wanted for wanted, name in (line.split(maxsplit=1) for line in lines)}


def test_an_intact_folder_passes(intact: Path) -> None:
    assert sums(intact).keys() == {"README.md", "model_index.json", "unet/model.safetensors"}
    assert bundled.checked(intact) == intact
    (intact / "notes.txt").write_text("what the user adds is no damage")
    assert bundled.checked(intact) == intact


@pytest.mark.parametrize("name", ["unet/model.safetensors", "model_index.json"])
def test_one_flipped_bit_is_found(intact: Path, name: str) -> None:
    shipped = sums(intact)[name]
    flip_a_byte(intact / name)
    with pytest.raises(UserError) as caught:
        bundled.checked(intact)
    shutil.copytree(intact, intact.parent / "other")
    bundled.write_checksums(intact.parent / "other")
    found = sums(intact.parent / "other")[name]
    assert f"{name} has the checksum {found[:12]}..., not {shipped[:12]}..." in caught.value.what
    assert "the built-in model toy-sdxl is damaged" in caught.value.what
    assert caught.value.where == str(intact / name)
    assert "install tlora again" in caught.value.do


def test_a_missing_file_is_found(intact: Path) -> None:
    (intact / "unet" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="can't be read: No such file") as caught:
        bundled.checked(intact)
    assert caught.value.where == str(intact / "unet" / "model.safetensors")


def test_missing_checksums_are_found(intact: Path) -> None:
    (intact / bundled.CHECKSUMS).unlink()
    with pytest.raises(UserError, match="the built-in model toy-sdxl has no checksums") as caught:
        bundled.checked(intact)
    assert caught.value.where == str(intact / bundled.CHECKSUMS)


@pytest.mark.parametrize("content", [b"", b"\n", b"0123abcd\n", b"\xff\xfe\x00"])
def test_damaged_checksums_are_found(intact: Path, content: bytes) -> None:
    (intact / bundled.CHECKSUMS).write_bytes(content)
    with pytest.raises(UserError, match="the checksums of the built-in model toy-sdxl are damaged"):
        bundled.checked(intact)


def test_training_on_a_damaged_base_stops(
    refuse: Refuse, intact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = dataclasses.replace(BUNDLE, models=intact.parent)
    monkeypatch.setitem(bundled.BUNDLES._loaded, "toyworld", elsewhere)
    bundled.model_folder.cache_clear()
    weights = intact / "unet" / "model.safetensors"
    flip_a_byte(weights)
    message = refuse("train", "--config", write_recipe(Path("toy-sdxl"), tmp_path))
    assert "the built-in model toy-sdxl is damaged: unet/model.safetensors" in message
    assert str(weights) in message
    assert not (tmp_path / "run" / "adapter.safetensors").exists()


# --- what is shipped ------------------------------------------------------------------------------


def test_these_models_are_shipped() -> None:
    assert {path.name for path in BUNDLE.models.iterdir()} == set(SHIPPED)
    assert BUNDLE.bases.keys() < set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_are_whole(name: str) -> None:
    folder = bundled.checked(BUNDLE.models / name)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files - {bundled.CHECKSUMS} == sums(folder).keys(), "every file has its checksum"
    assert any(file.endswith(".safetensors") for file in files)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_have_a_card(name: str) -> None:
    card = (BUNDLE.models / name / "README.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}\n")
    figures = card.partition("## Figures")[2]
    for words in ("steps", *STATED[name]):
        assert words in figures


def test_shipped_models_are_small() -> None:
    files = [path for path in BUNDLE.models.rglob("*") if path.is_file()]
    assert {path.relative_to(BUNDLE.models).parts[0] for path in files} == set(SHIPPED)
    assert sum(path.stat().st_size for path in files) < MAX_BYTES


@pytest.mark.parametrize("name", BUNDLE.bases)
def test_a_base_keeps_its_name_and_has_a_folder(name: str) -> None:
    base = Base(name)
    assert base.path == BUNDLE.models / name
    assert base.absolute() == base, "the path would not hold on another machine"
    assert not base.is_file


# --- recipes --------------------------------------------------------------------------------------


def recipe(base: str | dict[str, str], **sections: Any) -> Recipe:
    family = "flux" if "flux" in str(base) else "sdxl"
    concept = {"images": "toy:pip/1", "class": "star"}
    values = {"family": family, "base": base, "concept": concept, "output": {"dir": "runs/pip"}}
    return Recipe.model_validate({**values, **sections})


def leaves(settings: dict[str, Any], path: str = "") -> dict[str, Any]:
    found = {}
    for key, value in settings.items():
        inside = isinstance(value, dict)
        found |= leaves(value, f"{path}{key}.") if inside else {f"{path}{key}": value}
    return found


@pytest.mark.parametrize("name", BUNDLE.bases)
def test_a_built_in_base_brings_its_settings(name: str) -> None:
    for base in (name, {"model": name}):
        made = recipe(base)
        assert (made.train.resolution, made.train.precision) == (64, "fp32")
        assert made.adapter.rank == 16
        assert made.sampling.steps == 20
        found = leaves(made.model_dump())
        for key, value in leaves(BUNDLE.settings(name, made.adapter.method)).items():
            assert found[key] == value, key
    assert recipe("some/flux" if "flux" in name else "some/model").train.resolution == 1024


def test_the_users_own_values_win() -> None:
    train = {"resolution": 128, "steps": 7, "optimizer": {"lr": 5e-4}}
    made = recipe("toy-sdxl", adapter={"rank": 8}, train=train, sampling={"guidance": 7.5})
    assert (made.train.resolution, made.train.steps, made.adapter.rank) == (128, 7, 8)
    assert (made.train.optimizer.name, made.train.optimizer.lr) == ("adamw", 5e-4)
    assert (made.sampling.guidance, made.sampling.steps) == (7.5, 20)
    assert made.train.precision == "fp32"


@pytest.mark.parametrize("name", BUNDLE.bases)
def test_another_optimizer_keeps_its_own_learning_rate(name: str) -> None:
    made = recipe(name, train={"optimizer": {"name": "prodigy"}})
    assert made.train.optimizer.lr == 1.0
    assert made.train.resolution == 64
