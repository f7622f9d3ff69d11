"""Plain data -> a model, or all that is wrong with it, each mistake with the value it concerns."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple, TypeVar, get_origin

from pydantic import ValidationError

from tlora_cli.recipe.mistakes import KeyPath, Layout
from tlora_cli.recipe.strict_section import Section

MAX_PASSES = 10
"""Times that data is mended to look for more mistakes."""

RootT = TypeVar("RootT", bound=Section)


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
