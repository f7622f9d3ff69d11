"""Grids as texts, and the mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlora_cli.comparison.cells import Plan
from tlora_cli.comparison.grid_io import load_grid
from tlora_cli.comparison.planning import make_plan
from tlora_cli.foundation.errors import UserError

RECIPE = """\
recipe:
  family: sdxl
  base: toy-sdxl
output: out
"""
FIX = "  fix:   mend the grid; docs/compare.md describes every key"


def plan(text: str) -> Plan:
    """Return the plan of a grid that lies in the present folder as g.yaml."""
    Path("g.yaml").write_text(text)
    return make_plan(load_grid(Path("g.yaml")))


def names(text: str) -> list[str]:
    """Return the names of a grid's cells."""
    return [cell.name for cell in plan(text).cells]


def mistakes(text: str) -> list[str]:
    """Return the lines that report the mistakes in a grid, without their indent."""
    with pytest.raises(UserError) as caught:
        plan(text)
    count, *lines, fix = str(caught.value).splitlines()
    assert count == f"{len(lines)} mistake{'s' * (len(lines) != 1)} in g.yaml"
    assert fix == FIX
    return [line.removeprefix("  ") for line in lines]
