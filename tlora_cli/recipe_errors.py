"""Mistakes in a recipe, in plain words: what is wrong with a value, and what was meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias, get_args, get_origin

from tlora_cli.errors import UserError
from tlora_cli.recipe import Recipe
from tlora_cli.recipe_base import Section

KeyPath: TypeAlias = tuple[str | int, ...]
"""Keys and list indices from the top of the recipe down."""

MAX_MISTAKES = 30
"""How many mistakes are printed."""


@dataclass(frozen=True)
class Mistake:
    """One thing to mend.

    Args:
        path: the value it concerns.
        text: what is wrong with it.
        line: its line in the file, if it comes from there.
        override: the `--set` argument it comes from, else empty.
    """

    path: KeyPath
    text: str
    line: int | None = None
    override: str = ""

    def __str__(self) -> str:
        """Return the mistake in one line: where, key, what."""
        parts = [dotted(self.path), self.text] if self.path else [self.text]
        if self.override:
            parts.insert(0, f"--set {_printable(self.override)}")
        elif self.line is not None:
            parts.insert(0, f"line {self.line}")
        return ": ".join(parts)


def recipe_error(mistakes: Iterable[Mistake], source: str) -> UserError:
    """Return the error that reports every mistake, in the order of the file."""
    last = float("inf")
    ordered = sorted(mistakes, key=lambda m: (bool(m.override), last if m.line is None else m.line))
    lines = [f"  {mistake}" for mistake in ordered[:MAX_MISTAKES]]
    if len(ordered) > MAX_MISTAKES:
        lines.append(f"  ... and {len(ordered) - MAX_MISTAKES} more")
    count = "1 mistake" if len(ordered) == 1 else f"{len(ordered)} mistakes"
    return UserError(
        "\n".join([f"{count} in {source}", *lines]),
        do="mend the recipe; `tlora recipe schema` describes every key",
    )


def explain(error: Mapping[str, Any], path: KeyPath) -> str:
    """Return what is wrong, in plain words.

    Args:
        error: one of pydantic's errors.
        path: the value it concerns.
    """
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key; {_suggest_key(path)}"
    if kind == "missing":
        return _explain_missing(path)
    if kind == "literal_error":
        return _explain_choice(path, value)
    if kind == "value_error":
        return str(context["error"])
    if kind in ("too_short", "too_long"):
        bound = "min_length" if kind == "too_short" else "max_length"
        side = "least" if kind == "too_short" else "most"
        return f"must have at {side} {context[bound]} values, got {context['actual_length']}"
    wanted = _wanted(kind, context, path)
    return f"must be {wanted}, got {described(value)}{_remedy(kind, value)}"


_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
}
_BOUNDS = {
    "greater_than": ("above {}", "gt"),
    "greater_than_equal": ("at least {}", "ge"),
    "less_than": ("below {}", "lt"),
    "less_than_equal": ("at most {}", "le"),
    "multiple_of": ("a multiple of {}", "multiple_of"),
}


def _wanted(kind: str, context: Mapping[str, Any], path: KeyPath) -> str:
    """Return what a value should have been, after "must be"."""
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        bound = context[key]
        return words.format(int(bound) if float(bound).is_integer() else bound)
    if kind == "string_too_short":
        return "a text that is not empty"
    if kind == "model_type":
        section = f"a section ({', '.join(keys_of(path))})"
        return f"a model name or {section}" if path == ("base",) else section
    return _TYPES.get(kind, f"valid ({kind})")


def _remedy(kind: str, value: Any) -> str:
    """Return how to write what was probably meant, or nothing."""
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}" if abs(value) < 1e15 else ""
    if kind == "string_type" and isinstance(value, bool | int | float):
        return "; put it in quotes"
    if kind == "string_type" and value is None:
        return '; write "" for no text'
    if kind == "bool_type" and isinstance(value, str):
        meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value.lower())
        return f"; write {meant}" if meant else ""
    return ""


def _explain_missing(path: KeyPath) -> str:
    if isinstance(path[-1], int):
        return "too few values"
    field = field_at(path)
    keys = [key for key, info in keys_of(path).items() if info.is_required()]
    if path == ("base",):
        return "missing (a model name, or a section)"
    if keys:
        return f"missing section; it needs {' and '.join(keys)}"
    choices = choices_at(path)
    hint = f"one of {', '.join(choices)}" if choices else getattr(field, "description", None)
    return f"missing ({hint})" if hint else "missing"


def _explain_choice(path: KeyPath, value: Any) -> str:
    choices = choices_at(path)
    text = f"must be one of {', '.join(choices)}, got {described(value)}"
    meant = get_close_matches(str(value).lower(), choices, n=1, cutoff=0.5)  # float16: fp16
    return f"{text}; did you mean {meant[0]}?" if meant else text


def _suggest_key(path: KeyPath) -> str:
    """Return where an unknown key belongs, or what its section has instead."""
    key, here = str(path[-1]), keys_of(path[:-1])
    nested: KeyPath = (*path[:-1], *key.split("."))
    if "." in key and field_at(nested) is not None:
        return f"nest it: `{nested[-1]}` under `{dotted(nested[:-1])}`"
    if key == "<<":
        return "merging (<<) is not supported; write the keys out"
    if homes := [dotted(section) for section in sections() if section and key in keys_of(section)]:
        return f"`{key}` belongs under {' or '.join(f'`{home}`' for home in homes)}"
    if key in keys_of(()):
        return f"`{key}` belongs at the top of the recipe"
    if close := get_close_matches(key.lower(), here, n=1):
        return f"did you mean `{dotted((*path[:-1], close[0]))}`?"
    return f"the keys here are {', '.join(here)}"


def _section_of(annotation: Any) -> type[Section] | None:
    """Return the section in `Section` or `Section | None`."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def section_at(path: KeyPath) -> type[Section] | None:
    """Return the model of the section at `path`, if it is one."""
    if not path:
        return Recipe
    field = field_at(path)
    return None if field is None else _section_of(field.annotation)


def keys_of(path: KeyPath) -> dict[str, Any]:
    """Return the fields of the section at `path` under the keys a recipe uses."""
    section = section_at(path)
    fields = {} if section is None else section.model_fields
    return {info.alias or name: info for name, info in fields.items()}


def field_at(path: KeyPath) -> Any:
    """Return the field at `path`, or None."""
    return keys_of(path[:-1]).get(path[-1]) if path and isinstance(path[-1], str) else None


def sections(top: KeyPath = ()) -> list[KeyPath]:
    """Return the paths of all sections, outermost first."""
    below = [(*top, key) for key in keys_of(top) if section_at((*top, key))]
    return [top, *(path for child in below for path in sections(child))]


def choices_at(path: KeyPath) -> list[str]:
    """Return the values allowed at `path`, if they are listed."""
    field = field_at(path)
    kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
    for kind in kinds:
        if get_origin(kind) is Literal:
            return [str(choice) for choice in get_args(kind)]
    return []


def dotted(path: KeyPath) -> str:
    """Return a path as users write it: `train.preview.prompts[1]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f"{'.' if text else ''}{_printable(part)}"
    return text


def described(value: Any) -> str:
    """Return a value in words, so that the text '64' is told from the number 64."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {shown(value)}" if value else "an empty text"
    if isinstance(value, list | tuple):
        return "a list"
    return "a section" if isinstance(value, dict) else str(value)


def shown(text: str) -> str:
    """Return text in quotes, escaped, and cut where it is long."""
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def _printable(text: str) -> str:
    """Return text that is safe to print in one line of a terminal."""
    return text if text.isprintable() and len(text) <= 80 else shown(text)
