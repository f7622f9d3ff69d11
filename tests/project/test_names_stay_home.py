"""A family's or a method's name stands in its own file and its line of the registry alone."""

from __future__ import annotations

import ast
import functools
from collections.abc import Collection
from pathlib import Path

from tlora_cli.families import FAMILIES
from tlora_cli.methods import METHODS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tlora_cli"
ELSEWHERE = ("toyworld/",)
"""What belongs to the built-in world, whose bases are of certain families and methods."""
PROGRAM = "foundation/packages.py"
"""The file that says the program's own name, which one method shares."""


@functools.cache
def strings(file: Path) -> list[tuple[int, str]]:
    """Return the string constants of a file with their lines."""
    return [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def strays(names: Collection[str], homes: Collection[str]) -> list[str]:
    """Return where names stand as string constants outside of their homes.

    Args:
        names: of one kind.
        homes: files of that kind, below `tlora_cli`; a folder ends in a slash.
    """
    found, seen = [], 0
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE).as_posix()
        seen += 1
        if place.startswith((*homes, *ELSEWHERE)):
            continue
        found += [f"{place}:{line}: {text}" for line, text in strings(file) if text in names]
    assert seen > 100, "the package was found"
    return found


def test_names_of_families() -> None:
    registry = "families/__init__.py"
    own = {name: f"families/{name}.py" for name in FAMILIES}
    for name, file in own.items():
        assert not strays([name], [file, registry])
        assert name in {text for _, text in strings(PACKAGE / file)}


STATED = ["families/stated.py", "families/rectified_flow.py"]
"""Where families state the method of a recipe that names none."""


def test_names_of_methods() -> None:
    registry = "methods/__init__.py"
    assert len(METHODS) >= 15
    for name in METHODS:
        own = METHODS._own[name].partition(":")[0].removeprefix("tlora_cli.").replace(".", "/")
        assert not strays([name], [f"{own}.py", registry, PROGRAM, *STATED])
        assert name in {text for _, text in strings(PACKAGE / f"{own}.py")}


def test_a_family_is_registered_under_its_own_name() -> None:
    names = ["sdxl", "flux", "flux2", "z_image", "qwen_image", "sd3", "krea2", "qwen_image_21"]
    assert [*FAMILIES] == [one.name for one in FAMILIES.values()] == names
