"""Recipe files: YAML and overrides to a Recipe and back.

Everything that is wrong with a recipe is reported at once, each mistake with its line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_origin

import yaml
from pydantic import ValidationError

from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.mistakes import RECIPE, KeyPath, Layout, Mistake, dotted, recipe_error
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.strict_section import Section
from tlora_cli.recipe.yaml_text import MAX_DEPTH, Dumper, YAMLMistake, parse_yaml

MAX_BYTES = 1_000_000
"""Largest recipe file that is read."""

MAX_PASSES = 10
"""How often a recipe is mended to look for more mistakes."""


RootT = TypeVar("RootT", bound=Section)


class _Origin(NamedTuple):
    """Where a value comes from: a line of the file, or an override."""

    line: int | None = None
    override: str = ""


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file.

    Paths in it are left as they are: relative to the current folder.

    Args:
        path: the YAML file.
        overrides: `train.steps=100` settings that win over the file; the value is YAML.

    Raises:
        UserError: naming every mistake, its line and its key.
    """
    return parse_recipe(read_text(path), str(path), overrides)


def parse_recipe(text: str, source: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in `text`; see `load_recipe`.

    Args:
        text: YAML.
        source: what messages call it.
        overrides: as in `load_recipe`.
    """
    recipe, mistakes = examine_text(text, source, overrides)
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
    text: str, source: str, overrides: Sequence[str]
) -> tuple[Recipe | None, list[Mistake]]:
    """Return the recipe in `text` and all that is wrong in it; see `examine_recipe`."""
    data, lines, mistakes = read_mapping(text, source)
    origins = {path: _Origin(line) for path, line in lines.items()}
    for override in overrides:
        mistakes += _override(data, origins, override)
    recipe, wrongs = validate(data, {mistake.path for mistake in mistakes}, Recipe, RECIPE)
    mistakes += [
        Mistake(path, text, *_origin(origins, (path, *others))) for path, text, others in wrongs
    ]
    return recipe, mistakes


def read_mapping(
    text: str, source: str, called: str = "recipe"
) -> tuple[dict[str, Any], dict[KeyPath, int], list[Mistake]]:
    """Return the data in `text`, the line of each path in it, and what could not be read.

    Args:
        text: YAML.
        source: what messages call it.
        called: what kind of file it is, for messages.

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
    return data, parsed.lines, mistakes


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
        why = error.strerror or str(error)
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


def _override(
    data: dict[str, Any], origins: dict[KeyPath, _Origin], override: str
) -> list[Mistake]:
    """Set one `key=value` in `data`, and its origin; return what is wrong with it."""
    key, equals, text = override.partition("=")
    path: KeyPath = tuple(key.strip().split("."))
    if not equals or not all(path) or len(path) > MAX_DEPTH:
        return [Mistake((), "write it as key=value, e.g. train.steps=100", override=override)]
    try:
        value = parse_yaml(text)
    except YAMLMistake as error:
        return [Mistake(path, f"{error.text} (text may need quotes)", override=override)]
    wrong = [Mistake((*path, *inner.path), inner.text, None, override) for inner in value.mistakes]
    if isinstance(data.get("base"), str) and path[0] == "base" and len(path) > 1:
        data["base"] = {"model": data["base"]}
    section = data
    for depth, part in enumerate(path[:-1], 1):
        if section.get(str(part)) is None:
            section[str(part)] = {}
            origins[path[:depth]] = _Origin(override=override)
        inside = section[str(part)]
        if not isinstance(inside, dict):
            return [Mistake(path, f"`{dotted(path[:depth])}` is no section", override=override)]
        section = inside
    section[str(path[-1])] = value.data
    for below in [known for known in origins if known[: len(path)] == path]:
        del origins[below]
    origins[path] = _Origin(override=override)
    return wrong


def _origin(origins: dict[KeyPath, _Origin], paths: Iterable[KeyPath]) -> _Origin:
    """Return where the first of `paths` that the user wrote comes from, or else its section."""
    candidates = list(paths)
    for path in candidates:
        if path in origins:
            return origins[path]
    nearest = candidates[0]
    while nearest and nearest not in origins:
        nearest = nearest[:-1]
    return origins.get(nearest, _Origin()) if nearest else _Origin()


class Wrong(NamedTuple):
    """A mistake that validation found: the value, what is wrong, the other values involved."""

    path: KeyPath
    text: str
    others: tuple[KeyPath, ...] = ()


def validate(
    data: dict[str, Any], known: set[KeyPath], root: type[RootT], layout: Layout
) -> tuple[RootT | None, list[Wrong]]:
    """Return the model of plain data, or all that is wrong with it.

    Checks across keys only run once each key is right by itself. So what is wrong is replaced by
    the default and the data validated again, until nothing more comes up; mistakes that follow
    from a replacement are dropped.

    Args:
        data: a recipe, say, as plain data.
        known: what is known to be wrong.
        root: its model.
        layout: its keys.
    """
    data = deepcopy(data)
    found: list[Wrong] = []
    mended = {path for path in known if path}
    for _ in range(MAX_PASSES):
        try:
            return root.model_validate(data, by_alias=True, by_name=False), found
        except ValidationError as error:
            wrongs = [wrong for item in error.errors() for wrong in _wrongs(item, layout)]
        fresh = [
            wrong
            for wrong in wrongs
            if not any(_overlap(p, q) for p in (wrong.path, *wrong.others) for q in mended)
        ]
        found += fresh
        before = deepcopy(data)
        for wrong in wrongs:
            for path in (wrong.path, *wrong.others):
                mended.add(path)
                _mend(data, path, layout)
        if data == before:
            break
    return None, found


def _wrongs(error: Any, layout: Layout) -> list[Wrong]:
    """Return the mistakes that one of pydantic's errors stands for."""
    where: KeyPath = tuple(error["loc"])
    if error["type"] == "inconsistent":
        return [
            Wrong(first, problem.text, tuple(others))
            for problem in error["ctx"]["problems"]
            for first, *others in [[(*where, *key.split(".")) for key in problem.keys]]
        ]
    if error["type"] == "default_factory_not_called":
        return []  # the value it would be made from is reported itself
    return [Wrong(where, layout.explain(error, where))]


def _overlap(a: KeyPath, b: KeyPath) -> bool:
    """Say whether one path is the other or lies within it."""
    shorter = min(len(a), len(b))
    return a[:shorter] == b[:shorter]


def _mend(data: dict[str, Any], path: KeyPath, layout: Layout) -> None:
    """Remove the value at `path`, so that the default holds; fill it in where there is none.

    Of a list with a wrong value in it, all is removed.
    """
    keys = list(path)
    while keys and isinstance(keys[-1], int):
        keys.pop()
    section: Any = data
    for key in keys[:-1]:
        if isinstance(key, int):
            section = section[key] if isinstance(section, list) and key < len(section) else None
        else:
            section = section.get(key) if isinstance(section, dict) else None
    if not isinstance(section, dict):
        return
    name = str(keys[-1])
    if name in section:
        del section[name]
    elif (field := layout.field_at(tuple(keys))) is not None and field.is_required():
        section[name] = _stand_in(tuple(keys), layout)


def _stand_in(path: KeyPath, layout: Layout) -> Any:
    """Return some valid value for the required field at `path`."""
    is_list = get_origin(layout.field_at(path).annotation) is list
    if layout.section_at(path):
        fields = layout.keys_of(path).items()
        section = {key: _stand_in((*path, key), layout) for key, f in fields if f.is_required()}
        return [section] if is_list else section
    return ["x"] if is_list else (layout.choices_at(path) or ["x"])[0]
