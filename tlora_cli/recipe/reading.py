"""Recipe files: YAML and overrides to a Recipe and back.

Everything that is wrong with a recipe is reported at once, each mistake with its line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tlora_cli.foundation.errors import UserError, system_reason
from tlora_cli.recipe.mistakes import RECIPE, KeyPath, Layout, Mistake, dotted, recipe_error
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.places import fill_places
from tlora_cli.recipe.validation import validate
from tlora_cli.recipe.words import word_problems
from tlora_cli.recipe.yaml_text import MAX_DEPTH, Dumper, YAMLMistake, parse_yaml

MAX_BYTES = 1_000_000
"""Largest recipe file that is read."""


class Origin(NamedTuple):
    """The place a value comes from: a line of the file, or an override."""

    line: int | None = None
    override: str = ""


def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, began: bool = False) -> Recipe:
    """Read a recipe file.

    Paths in it are left as they are: relative to the current folder.

    Args:
        path: the YAML file.
        overrides: `train.steps=100` settings that win over the file; the value is YAML.
        began: whether it is the recipe of a run that began; what was accepted then (odd characters,
            prompts without the concept) is read as it was.

    Raises:
        UserError: naming every mistake, its line and its key.
    """
    return parse_recipe(read_text(Path(path)), str(path), overrides, began=began)


def parse_recipe(
    text: str, source: str = "recipe", overrides: Sequence[str] = (), *, began: bool = False
) -> Recipe:
    """Return the recipe in `text`; see `load_recipe`.

    Args:
        text: YAML.
        source: what messages call it.
        overrides: as in `load_recipe`.
        began: as in `load_recipe`.
    """
    recipe, mistakes = examine_text(text, source, overrides, began=began)
    if recipe is None or mistakes:
        raise recipe_error(mistakes, source)
    return recipe


def examine_recipe(
    path: Path, overrides: Sequence[str] = ()
) -> tuple[Recipe | None, list[Mistake]]:
    """Return a recipe file's recipe and all that is wrong in it, for those who look further.

    What is wrong has its default in the recipe, which is None if that can't be made.

    Raises:
        UserError: if the file can't be read, or is no mapping.
    """
    return examine_text(read_text(path), str(path), overrides)


def examine_text(
    text: str, source: str, overrides: Sequence[str], *, began: bool = False
) -> tuple[Recipe | None, list[Mistake]]:
    """Return the recipe in `text` and all that is wrong in it; see `examine_recipe`."""
    data, lines, mistakes = read_mapping(text, source, began=began)
    origins = {path: Origin(line) for path, line in lines.items()}
    for override in overrides:
        mistakes += apply_override(data, origins, override)
    recipe, wrongs = validate(data, {mistake.path for mistake in mistakes}, Recipe, RECIPE)
    mistakes += [
        Mistake(path, text, *origin_of(origins, (path, *others))) for path, text, others in wrongs
    ]
    if recipe is not None and not began:
        mistakes += [
            Mistake(path, text, *origin_of(origins, (path,)))
            for path, text in word_problems(recipe)
        ]
    return recipe, mistakes


def read_mapping(
    text: str, source: str, called: str = "recipe", *, began: bool = False
) -> tuple[dict[str, Any], dict[KeyPath, int], list[Mistake]]:
    """Return the data in `text`, the line of each path in it, and what could not be read.

    Args:
        text: YAML.
        source: what messages call it.
        called: what kind of file it is, for messages.
        began: as in `load_recipe`.

    Raises:
        UserError: if the text is no YAML, or no mapping.
    """
    try:
        parsed = parse_yaml(text)
    except YAMLMistake as error:
        raise recipe_error([Mistake((), error.text, error.line)], source) from error
    data, mistakes = parsed.data, parsed.mistakes
    if data is None and not mistakes:
        raise UserError(f"the {called} is empty", source, "start from one of the files in configs/")
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "a single value"
        wrong = Mistake((), f"the {called} must be `key: value` lines, got {kind}")
        raise recipe_error(mistakes or [wrong], source)
    unfilled = [Mistake(path, said, _line(parsed.lines, path)) for path, said in fill_places(data)]
    if not began:
        mistakes += [*parsed.doubts, *unfilled]
    return data, parsed.lines, mistakes


def _line(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)


def dump_recipe(recipe: Recipe) -> str:
    """Return YAML that loads back to an equal recipe: every key, in the order of the models."""
    data = recipe.model_dump(mode="json", by_alias=True)
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, for editors and for reading."""
    schema = Recipe.model_json_schema(by_alias=True)
    base = schema["properties"]["base"]
    reference = base.pop("$ref")
    base["anyOf"] = [{"type": "string", "minLength": 1}, {"$ref": reference}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def read_text(path: Path, called: str = "recipe") -> str:
    """Return the text of a recipe file, or of another kind of file that is `called` so.

    Raises:
        UserError: if it can't be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UserError(f"there is no such {called}", str(path), "check the path") from error
    except IsADirectoryError as error:
        raise UserError(
            f"a folder is no {called}", str(path), "name the .yaml file in it"
        ) from error
    except OSError as error:
        why = system_reason(error)
        raise UserError(f"cannot read the {called}: {why}", str(path), "check the file") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"the file is too large for a {called} (over 1 MB)", str(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"the {called} is not UTF-8 text", f"{path}, line {line}", "save it as UTF-8 text"
        ) from error


def apply_override(
    data: dict[str, Any],
    origins: dict[KeyPath, Origin],
    override: str,
    layout: Layout = RECIPE,
) -> list[Mistake]:
    """Set one `key=value` in `data`, and its origin; return what is wrong with it.

    `key=null` takes out a key that can't be null: it is then as if it had never been written.

    Args:
        data: changed in place; sections on the way are made.
        origins: where each value comes from; changed in place.
        override: the option's text; its value is YAML.
        layout: the keys of such data.
    """
    key, equals, text = override.partition("=")
    path: KeyPath = tuple(key.strip().split("."))
    if not equals or not all(path) or len(path) > MAX_DEPTH:
        return [Mistake((), "write it as key=value, e.g. train.steps=100", override=override)]
    try:
        value = parse_yaml(text)
    except YAMLMistake as error:
        return [Mistake(path, f"{error.text} (text may need quotes)", override=override)]
    inners = [*value.mistakes, *value.doubts]
    wrong = [Mistake((*path, *inner.path), inner.text, None, override) for inner in inners]
    given = {".".join(map(str, path)): value.data}
    for inner_path, said in fill_places(given):
        wrong.append(Mistake((*path, *inner_path[1:]), said, None, override))
    if isinstance(data.get("base"), str) and path[0] == "base" and len(path) > 1:
        data["base"] = {"model": data["base"]}
    section = data
    for depth, part in enumerate(path[:-1], 1):
        if section.get(str(part)) is None:
            section[str(part)] = {}
            origins[path[:depth]] = Origin(override=override)
        inside = section[str(part)]
        if not isinstance(inside, dict):
            return [Mistake(path, f"`{dotted(path[:depth])}` is no section", override=override)]
        section = inside
    name, new = str(path[-1]), next(iter(given.values()))
    if new is None and text.strip() and not layout.may_be_null(path):
        section.pop(name, None)
    else:
        section[name] = new
    for below in [known for known in origins if known[: len(path)] == path]:
        del origins[below]
    origins[path] = Origin(override=override)
    return wrong


def origin_of(origins: dict[KeyPath, Origin], paths: Iterable[KeyPath]) -> Origin:
    """Return where the first of `paths` that the user wrote comes from, or else its section."""
    candidates = list(paths)
    for path in candidates:
        if path in origins:
            return origins[path]
    nearest = candidates[0]
    while nearest and nearest not in origins:
        nearest = nearest[:-1]
    return origins.get(nearest, Origin()) if nearest else Origin()
