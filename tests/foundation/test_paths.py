"""Paths with `~`: filled in from one place, and told where the home is nobody's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from training_runs import ROOT, recipe_values

from tlora_cli import UserError
from tlora_cli.foundation.cache import cache_folder
from tlora_cli.foundation.files import expanded, writable
from tlora_cli.foundation.hub import folder_or_id
from tlora_cli.recipe.models import Recipe
from tlora_cli.training.loop import train

NOBODY = "~nobody-of-that-name"


def test_one_place_fills_them_in() -> None:
    """Another call of `expanduser` would end in an internal error for such a name."""
    package = ROOT / "tlora_cli"
    found = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if re.search(r"expanduser\(|Path\.home\(", file.read_text("utf-8"))
    }
    assert found == {"foundation/files.py"}


def test_a_name_that_is_there_is_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / NOBODY).mkdir()
    assert expanded(NOBODY) == writable(NOBODY) == Path(NOBODY)


def test_what_is_written_goes_into_no_folder_of_that_name(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values = recipe_values(tiny_sdxl, tmp_path)
    values["output"] = {**values.get("output", {}), "dir": f"{NOBODY}/run"}
    with pytest.raises(UserError, match=f"{NOBODY} is the home of nobody here"):
        train(Recipe.model_validate(values))
    monkeypatch.setenv("TLORA_CACHE", f"{NOBODY}/cache")
    with pytest.raises(UserError, match=f"{NOBODY} is the home of nobody here"):
        cache_folder("places")
    assert not (tmp_path / NOBODY).exists()


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose user is a number that its system doesn't know, without HOME."""

    def unknown(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    monkeypatch.delenv("TLORA_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(UserError, match="the home folder is not known here") as told:
        cache_folder("places")
    assert told.value.do == "set HOME"


def test_a_model_that_lies_in_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "clip").mkdir()
    assert folder_or_id("~/clip", "the clip checkpoint") == str(tmp_path / "clip")
    assert folder_or_id("me/clip", "the clip checkpoint") == "me/clip"
    with pytest.raises(UserError, match="there is no folder ~/other"):
        folder_or_id("~/other", "the clip checkpoint")
