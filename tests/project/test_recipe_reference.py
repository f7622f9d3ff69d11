"""docs/recipe.md says what the models of the recipe say, and its examples are recipes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import recipe_reference as reference

from tlora_cli.recipe.defaults import merged
from tlora_cli.recipe.mistakes import RECIPE, dotted
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.yaml_text import parse_yaml

SECTIONS = RECIPE.sections()
CELL = re.compile(r"(?<!\\)\|")


def test_the_page_is_what_the_models_say() -> None:
    made = reference.page()
    assert reference.PAGE.read_text("utf-8") == made, "run `python scripts/recipe_reference.py`"


def test_every_key_has_its_row() -> None:
    """Read back from the page, against pydantic's own list of fields."""
    page = reference.PAGE.read_text("utf-8")
    found: set[str] = set()
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL):
        section = "" if title == "The whole" else title.strip("`") + "."
        for line in body.splitlines():
            cells = [cell.strip() for cell in CELL.split(line)[1:-1]]
            if len(cells) == 4 and (key := re.fullmatch(r"\[?`(\w+)`(\]\(#\w+\))?", cells[0])):
                found.add(section + key[1])
                assert all(cells), line
    wanted = {dotted(key) for path in SECTIONS for key in reference.key_rows(path)}
    assert len(wanted) > 60 and found == wanted


@pytest.mark.parametrize("section", [dotted(path) or "whole" for path in SECTIONS])
def test_examples_are_recipes_and_show_every_key(section: str) -> None:
    shown: set[str] = set()
    for text in reference.EXAMPLES.get(section, []):
        data: dict[str, Any] = merged(reference.LEAST, parse_yaml(text).data)
        Recipe.model_validate(data)
        shown |= reference.example_keys(text)
    path = () if section == "whole" else tuple(section.split("."))
    keys = {dotted(key) for key in reference.key_rows(path)}
    assert keys <= shown, f"scripts/recipe_examples.yaml lacks {sorted(keys - shown)}"


def test_the_tables_of_defaults_are_those_of_loaded_recipes() -> None:
    page = reference.PAGE.read_text("utf-8")
    tables = page.partition("## What a recipe leaves out")[2]
    for family, method, steps in (("sdxl", "svdiff", 1600), ("flux", "tlora", 500)):
        table = tables.partition(f"| {family} |")[2].partition("\n\n")[0]
        keys = [cell.strip(" `") for cell in table.splitlines()[0].split("|")]
        (row,) = [line for line in table.splitlines() if re.match(rf"\|.*`{method}`", line)]
        values = dict(zip(keys, [cell.strip() for cell in row.split("|")[2:]], strict=False))
        given = {**reference.LEAST, "family": family, "adapter": {"method": method}}
        recipe = Recipe.model_validate(given)
        assert int(values["steps"]) == recipe.train.steps == steps
        assert float(values["optimizer.lr"]) == recipe.train.optimizer.lr


def test_links_inside_the_page_have_a_target() -> None:
    page = reference.PAGE.read_text("utf-8")
    titles = re.findall(r"^## (.+)$", page, re.MULTILINE)
    # As GitHub makes them: lower case, spaces as dashes, all else but letters and `_` dropped.
    anchors = {re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles}
    links = set(re.findall(r"\]\(#([^)]+)\)", page))
    assert len(links) > 10 and links <= anchors
