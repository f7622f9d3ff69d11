"""Recipes as texts, and the mistakes in them."""

from __future__ import annotations

import pytest

from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.reading import parse_recipe

LEAST = """\
family: sdxl
base: some/model
concept:
  images: dog.jpg
  class: dog
output:
  dir: runs/dog
"""
FIX = "  fix:   mend the recipe; `tlora recipe schema` describes every key"


def mistakes(text: str, *overrides: str) -> list[str]:
    """Return the lines that report the mistakes in `text`, without their indent."""
    with pytest.raises(UserError) as caught:
        parse_recipe(text, "r.yaml", overrides)
    count, *lines, fix = str(caught.value).splitlines()
    assert count == f"{len(lines)} mistake{'s' * (len(lines) != 1)} in r.yaml"
    assert fix == FIX
    return [line.removeprefix("  ") for line in lines]


def mistake(text: str, *overrides: str) -> str:
    (line,) = mistakes(text, *overrides)
    return line
