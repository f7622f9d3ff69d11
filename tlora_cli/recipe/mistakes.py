"""Mistakes in a recipe, or another file of sections: what is wrong with a value, what was meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias, get_args, get_origin

from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.strict_section import Section

KeyPath: TypeAlias = tuple[str | int, ...]
"""Keys and list indices from the top of the recipe down."""

MAX_MISTAKES = 30
"""Most mistakes that are printed."""
MEND_RECIPE = "mend the recipe; `tlora recipe schema` describes every key"


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


def recipe_error(mistakes: Iterable[Mistake], source: str, do: str = MEND_RECIPE) -> UserError:
    """Return the error that reports every mistake, in the order of the file."""
    last = float("inf")
    ordered = sorted(mistakes, key=lambda m: (bool(m.override), last if m.line is None else m.line))
    lines = [f"  {mistake}" for mistake in ordered[:MAX_MISTAKES]]
    if len(ordered) > MAX_MISTAKES:
        lines.append(f"  ... and {len(ordered) - MAX_MISTAKES} more")
    count = "1 mistake" if len(ordered) == 1 else f"{len(ordered)} mistakes"
    return UserError(
        "\n".join([f"{count} in {source}", *lines]),
        do=do,
    )


@dataclass(frozen=True)
class Layout:
    """The keys of a kind of file, and what to say of mistakes in them.

    Attributes:
        root: the model of the whole file.
        called: what messages call such a file.
        short: sections that may be given as one value -> what that value is.
    """

    root: type[Section]
    called: str
    short: Mapping[KeyPath, str]

    def explain(self, error: Mapping[str, Any], path: KeyPath) -> str:
        """Return what is wrong, in plain words.

        Args:
            error: one of pydantic's errors.
            path: the value it concerns.
        """
        kind, value, context = error["type"], error["input"], error.get("ctx", {})
        if kind == "extra_forbidden":
            return f"unknown key; {self._suggest_key(path)}"
        if kind == "missing":
            return self._explain_missing(path)
        if kind == "literal_error":
            return self._explain_choice(path, value)
        if kind == "value_error":
            return str(context["error"])
        if kind in ("too_short", "too_long"):
            bound = "min_length" if kind == "too_short" else "max_length"
            side = "least" if kind == "too_short" else "most"
            return f"must have at {side} {context[bound]} values, got {context['actual_length']}"
        wanted = self._wanted(kind, context, path)
        return f"must be {wanted}, got {described(value)}{_remedy(kind, value)}"

    def _wanted(self, kind: str, context: Mapping[str, Any], path: KeyPath) -> str:
        """Return what a value should have been, after "must be"."""
        if kind in _BOUNDS:
            words, key = _BOUNDS[kind]
            bound = context[key]
            return words.format(int(bound) if float(bound).is_integer() else bound)
        if kind == "string_too_short":
            return "a text that is not empty"
        if kind == "model_type":
            section = f"a section ({', '.join(self.keys_of(path))})"
            short = self.short.get(_named(path))
            return f"{short} or {section}" if short else section
        return _TYPES.get(kind, f"valid ({kind})")

    def _explain_missing(self, path: KeyPath) -> str:
        if isinstance(path[-1], int):
            return "too few values"
        field = self.field_at(path)
        keys = [key for key, info in self.keys_of(path).items() if info.is_required()]
        if path in self.short:
            return f"missing ({self.short[path]}, or a section)"
        if keys:
            return f"missing section; it needs {' and '.join(keys)}"
        choices = self.choices_at(path)
        hint = f"one of {', '.join(choices)}" if choices else getattr(field, "description", None)
        return f"missing ({hint})" if hint else "missing"

    def _explain_choice(self, path: KeyPath, value: Any) -> str:
        choices = self.choices_at(path)
        text = f"must be one of {', '.join(choices)}, got {described(value)}"
        meant = get_close_matches(str(value).lower(), choices, n=1, cutoff=0.5)  # float16: fp16
        return f"{text}; did you mean {meant[0]}?" if meant else text

    def _suggest_key(self, path: KeyPath) -> str:
        """Return where an unknown key belongs, or what its section has instead."""
        key, here = str(path[-1]), self.keys_of(path[:-1])
        nested: KeyPath = (*path[:-1], *key.split("."))
        if "." in key and self.field_at(nested) is not None:
            return f"nest it: `{nested[-1]}` under `{dotted(nested[:-1])}`"
        if key == "<<":
            return "merging (<<) is not supported; write the keys out"
        homes = [dotted(s) for s in self.sections() if s and key in self.keys_of(s)]
        if homes:
            return f"`{key}` belongs under {' or '.join(f'`{home}`' for home in homes)}"
        if key in self.keys_of(()):
            return f"`{key}` belongs at the top of the {self.called}"
        if close := get_close_matches(key.lower(), here, n=1):
            return f"did you mean `{dotted((*_named(path[:-1]), close[0]))}`?"
        return f"the keys here are {', '.join(here)}"

    def section_at(self, path: KeyPath) -> type[Section] | None:
        """Return the model of the section at `path`, or of the sections in a list there."""
        path = _named(path)
        if not path:
            return self.root
        field = self.field_at(path)
        return None if field is None else _section_in(field.annotation)

    def keys_of(self, path: KeyPath) -> dict[str, Any]:
        """Return the fields of the section at `path` under the keys a file uses."""
        section = self.section_at(path)
        fields = {} if section is None else section.model_fields
        return {info.alias or name: info for name, info in fields.items()}

    def field_at(self, path: KeyPath) -> Any:
        """Return the field at `path`, or None."""
        return self.keys_of(path[:-1]).get(path[-1]) if path and isinstance(path[-1], str) else None

    def may_be_null(self, path: KeyPath) -> bool:
        """Whether null is a value of the field at `path`; of no field it is, to be told of."""
        field = self.field_at(path)
        return field is None or type(None) in get_args(field.annotation)

    def sections(self, top: KeyPath = ()) -> list[KeyPath]:
        """Return the paths of all sections, outermost first."""
        below = [(*top, key) for key in self.keys_of(top) if self.section_at((*top, key))]
        return [top, *(path for child in below for path in self.sections(child))]

    def choices_at(self, path: KeyPath) -> list[str]:
        """Return the values allowed at `path`, if they are listed."""
        field = self.field_at(_named(path))
        waiting = [] if field is None else [field.annotation]
        while waiting:
            kind = waiting.pop(0)
            if get_origin(kind) is Literal:
                return [str(choice) for choice in get_args(kind)]
            waiting += get_args(kind)
        return []


RECIPE = Layout(Recipe, "recipe", {("base",): "a model name"})
"""The keys of a recipe."""


def _named(path: KeyPath) -> KeyPath:
    """Return the path without the places in lists."""
    return tuple(part for part in path if isinstance(part, str))


def _section_in(annotation: Any) -> type[Section] | None:
    """Return the section in `Section`, `Section | None` or `list[Section]`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    inside = (_section_in(argument) for argument in get_args(annotation))
    return next((section for section in inside if section is not None), None)


_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a section",
}
_BOUNDS = {
    "greater_than": ("above {}", "gt"),
    "greater_than_equal": ("at least {}", "ge"),
    "less_than": ("below {}", "lt"),
    "less_than_equal": ("at most {}", "le"),
    "multiple_of": ("a multiple of {}", "multiple_of"),
}


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
