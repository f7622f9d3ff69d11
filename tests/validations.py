"""What tests of `tlora validate` share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from training_runs import recipe_values

from tlora_cli.cli.app import main
from tlora_cli.recipe.models import Recipe


def validate(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["tlora", "validate", *map(str, words)])
    return main()


def recipe(tiny: Path, folder: Path, **changes: Any) -> Recipe:
    return Recipe.model_validate(recipe_values(tiny, folder, **changes))


def told(findings: Any, level: str) -> str:
    """Return the texts of a level, a line each."""
    return "\n".join(one.text for one in findings if one.level == level)


def contents(folder: Path) -> list[str]:
    return sorted(path.as_posix() for path in folder.rglob("*"))
