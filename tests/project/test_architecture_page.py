"""docs/architecture.md shows the house as it is, and files that work."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import structure

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "tests" / "plugin"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FILES = ("halves.py", "lora_fa.py", "flat.py", "auraflow.py")


def blocks(kind: str) -> list[str]:
    """Return the page's blocks of code of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_floors_are_those_of_the_imports() -> None:
    shown = blocks("")[0]
    assert shown.rstrip() == structure.picture()


@pytest.mark.parametrize("name", FILES)
def test_the_examples_are_the_files_that_the_plugin_test_runs(name: str) -> None:
    source = (PLUGIN / "tlora_extra" / name).read_text(encoding="utf-8")
    assert source in blocks("python")


def test_every_file_of_the_plugin_is_shown() -> None:
    found = {path.name for path in (PLUGIN / "tlora_extra").glob("*.py")} - {"__init__.py"}
    assert found == set(FILES) and len(blocks("python")) == len(FILES)


def test_each_needs_one_line() -> None:
    points = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
    assert tomllib.loads(blocks("toml")[0])["project"]["entry-points"] == points
    assert [len(lines) for lines in points.values()] == [1, 1, 1, 1]
    for diff in blocks("diff"):
        assert sum(line.startswith("+") for line in diff.splitlines()) == 1
    assert len(blocks("diff")) == len(points)


def test_the_files_it_names_are_there() -> None:
    named = re.findall(r"`((?:\w+/)+\w+\.py)`", PAGE)
    assert len(named) > 20
    for name in named:
        places = (ROOT / name, ROOT / "tlora_cli" / name)
        assert any(place.is_file() for place in places), name
