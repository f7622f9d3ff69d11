"""What was learned on a built-in base is used on these weights only, not on later ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from training_runs import write_recipe

from tlora_cli import UserError
from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.foundation.bundled import (
    BUNDLES,
    CHECKSUMS,
    base_in,
    bases,
    model_folder,
    version_of,
)
from tlora_cli.injection import load
from tlora_cli.recipe.reading import load_recipe
from tlora_cli.training.loop import train
from tlora_cli.training.run_folder import checkpoints


def run(folder: Path, resume: bool = False, steps: int = 2) -> Path:
    recipe = load_recipe(
        write_recipe(Path("toy-sdxl"), folder, concept__images="toy:momo/1", train__steps=steps)
    )
    outcome = train(recipe, resume)
    assert outcome.adapter
    return outcome.adapter


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("version"))


@pytest.fixture(scope="module")
def base() -> Any:
    return load_pipeline(FAMILIES["sdxl"], Base("toy-sdxl"))


def header(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return dict(opened.metadata())


def test_every_base_has_its_own_version_and_is_known_by_its_folder() -> None:
    versions = [version_of(base) for base in bases()]
    assert len(set(versions)) == len(versions) and None not in versions
    assert version_of("some/model") is None
    for name, part in (("toy-sdxl", "unet"), ("toy-flux", "transformer")):
        folder = model_folder(name)
        assert base_in(folder) == base_in(folder / part) == base_in(str(folder / part)) == name
    assert base_in("") is base_in("toy-sdxl") is base_in("/models/toy-sdxl/unet") is None
    assert base_in(BUNDLES["toyworld"].models / "judge") is None


def test_a_version_is_of_the_weights_and_not_of_what_is_told_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, lines = version_of("toy-sdxl"), (model_folder("toy-sdxl") / CHECKSUMS).read_text()
    monkeypatch.setattr("tlora_cli.foundation.bundled.model_folder", lambda base: tmp_path)

    def changed(name: str) -> str:
        return re.sub(rf"(?m)^\w+(?=  {re.escape(name)}$)", "0" * 64, lines)

    for file, same in (("README.md", True), ("scores.json", True), ("unet/config.json", False)):
        assert changed(file) != lines
        (tmp_path / CHECKSUMS).write_text(changed(file))
        assert (version_of("toy-sdxl") == version) == same, file


def test_an_adapter_says_its_version_and_loads(adapter: Path, base: Any) -> None:
    assert header(adapter)["tlora.base_version"] == version_of("toy-sdxl")
    load.load_adapter(base, adapter).remove()


@pytest.mark.parametrize("said", [None, "0123456789ab"])
def test_an_adapter_of_other_weights_is_refused(
    said: str | None, adapter: Path, base: Any, tmp_path: Path
) -> None:
    fields = {**header(adapter), "tlora.base_version": said}
    old = tmp_path / "old.safetensors"
    save_file(load_file(adapter), old, {name: text for name, text in fields.items() if text})
    with pytest.raises(UserError, match="an earlier version of toy-sdxl") as refused:
        load.load_adapter(base, old)
    assert refused.value.where == str(old)


def test_it_is_not_refused_elsewhere(adapter: Path, tmp_path: Path) -> None:
    """The same folder under another path, as someone has who keeps the old weights."""
    fields = {**header(adapter), "tlora.base_version": "0123456789ab"}
    old = tmp_path / "old.safetensors"
    save_file(load_file(adapter), old, fields)
    copy = tmp_path / "toy-sdxl"
    copy.symlink_to(model_folder("toy-sdxl"))
    load.load_adapter(load_pipeline(FAMILIES["sdxl"], Base(str(copy))), old).remove()


def test_a_run_on_other_weights_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path)
    found = checkpoints(tmp_path / "run" / "checkpoints")
    before = [file.read_bytes() for file in found[-1].iterdir()]
    monkeypatch.setattr("tlora_cli.training.from_recipe.version_of", lambda base: "0123456789ab")
    with pytest.raises(UserError, match="was started on an earlier version of toy-sdxl"):
        run(tmp_path, resume=True, steps=4)
    assert [file.read_bytes() for file in found[-1].iterdir()] == before
    monkeypatch.undo()
    run(tmp_path, resume=True, steps=4)
