"""YAML as recipes use it: plain data, and the line of every key and value.

PyYAML reads YAML 1.1, where `1e-4` is a text, `no` is false and `1:30` is 90. Here scalars follow
the core schema of YAML 1.2 instead. Text from strangers is safe to read: no tag makes an object,
and size, depth and the number of values are limited, aliases counted as often as they are used.

ruamel.yaml reads YAML 1.2 and keeps lines, but would not make this shorter: it stops at the first
key that is given twice, where all mistakes are told at once; and plain data, the refusal of tags,
merges and keys that are no text, the limits on values, aliases and digits, and the words of the
messages would have to be written around it as they are here around PyYAML's nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from tlora_cli.recipe.look_alikes import odd_line, odd_scalar
from tlora_cli.recipe.mistakes import KeyPath, Mistake, shown

MAX_DEPTH = 20
MAX_VALUES = 10_000
MAX_NUMBER = 100
"""Limits far above any recipe: nesting, values in all, characters of a number."""

_TAG = "tag:yaml.org,2002:"

CORE_SCHEMA = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)
"""YAML 1.2, section 10.3.2: tag, what it looks like, its first characters; the first match wins."""


class YAMLMistake(Exception):
    """Text that can't be read at all.

    Args:
        line: where, counted from 1; None if nowhere in particular.
        text: what is wrong.
    """

    def __init__(self, line: int | None, text: str) -> None:
        super().__init__(line, text)
        self.line = line
        self.text = text


@dataclass
class Parsed:
    """Plain data (mappings, lists, scalars), the line of each path in it, and its mistakes.

    Doubts are of characters that can't be meant (`look_alikes`); the data has them.
    """

    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    doubts: list[Mistake] = field(default_factory=list)


_ENDS = ("\r", "\n", "\0", "#")
"""Characters that follow the spaces of a line without text."""


class _Loader(yaml.SafeLoader):
    """Composes nodes with the core schema's scalars, within the limits."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own attribute)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.values = 0

    def scan_to_next_token(self) -> None:
        """Skip tabs, too, where YAML 1.2 has them as spaces: behind text, and in empty lines."""
        super().scan_to_next_token()
        while self.peek() == "\t":
            length = 1
            while self.peek(length) in (" ", "\t"):
                length += 1
            before = self.buffer[self.pointer - self.column : self.pointer]
            if not before.strip() and self.peek(length) not in _ENDS:
                return  # it indents, which YAML forbids
            self.forward(length)
            super().scan_to_next_token()

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Count what is composed: the recursion here is the depth of the text."""
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
        self.depth += 1
        self.values += 1
        if self.depth > MAX_DEPTH:
            raise YAMLMistake(line, f"nested more than {MAX_DEPTH} deep")
        if self.values > MAX_VALUES:
            raise YAMLMistake(line, f"more than {MAX_VALUES} values; this is no recipe")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class Dumper(yaml.SafeDumper):
    """Writes YAML that means the same to this module and to readers of YAML 1.1."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write repeated values out; `*id001` helps nobody."""
        return True


def _represent_list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.SequenceNode:
    """Write numbers in one line, `[0.9, 0.999]`, and texts one to a line."""
    flow = not any(isinstance(value, str | dict) for value in values)
    return dumper.represent_sequence(f"{_TAG}seq", values, flow_style=flow)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Write a text in quotes if it would be doubted without."""
    style = '"' if odd_scalar(text, plain=True) else None
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


Dumper.add_representer(list, _represent_list)
Dumper.add_representer(str, _represent_text)
for _kind, _pattern, _first in CORE_SCHEMA:
    for _class in (_Loader, Dumper):
        _class.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(f"(?:{_pattern})$"), _first)


def parse_yaml(text: str) -> Parsed:
    """Return the data in `text`, with lines and with mistakes that leave the rest readable.

    Raises:
        YAMLMistake: if the text is no YAML, or beyond the limits.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = f"U+{error.character:04X}" if isinstance(error.character, int) else "?"
        raise YAMLMistake(line, f"the character {character} is not allowed") from error
    except yaml.MarkedYAMLError as error:
        raise YAMLMistake(*_explain(error, text)) from error
    except (ValueError, OverflowError) as error:  # PyYAML's chr() of an escape beyond Unicode
        raise YAMLMistake(None, f"not valid YAML: {error}") from error
    parsed = Parsed()
    if root is not None:
        parsed.data = _Converter(parsed).convert(root, (), 0)
    return parsed


def _explain(error: yaml.MarkedYAMLError, text: str) -> tuple[int | None, str]:
    """Return the line of a syntax error, and the error with its column in one line."""
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "cannot be read"
    if problem.startswith("but "):
        problem = f"{error.context}, {problem}"
    if mark is None:
        return None, f"not valid YAML: {problem}"
    if odd := odd_line(text, mark.line + 1):
        return odd[0], f"not valid YAML: {odd[1]}"
    hint = "; indent with spaces, not tabs" if r"\t" in problem else ""
    if "escape" in problem:
        hint = (
            "; in double quotes a backslash starts an escape, so write a Windows path in single "
            "quotes, or with /"
        )
    if "mapping values are not allowed" in problem:
        hint = "; put text that holds ': ' in quotes"
    if "undefined alias" in problem or "alphabetic or numeric" in problem:
        hint = "; put text that starts with * or & in quotes"
    return mark.line + 1, f"not valid YAML, column {mark.column + 1}: {problem}{hint}"


class _Converter:
    """Nodes to plain data; aliases become copies, so lines and overrides stay unambiguous."""

    def __init__(self, parsed: Parsed) -> None:
        self.parsed = parsed
        self.values = 0

    def convert(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        line = node.start_mark.line + 1
        self.parsed.lines.setdefault(path, line)
        self.values += 1
        if depth > MAX_DEPTH:  # deeper than composed: an alias inside its own anchor
            raise YAMLMistake(line, f"aliases nest more than {MAX_DEPTH} deep")
        if self.values > MAX_VALUES:
            raise YAMLMistake(line, f"aliases expand to more than {MAX_VALUES} values")
        known = {"null", "bool", "int", "float", "str", "seq", "map"}
        if node.tag.removeprefix(_TAG) not in known or not node.tag.startswith(_TAG):
            tag = node.tag.replace(_TAG, "!!")
            self._mistake(path, line, f"the tag {shown(tag)} is not allowed; give a plain value")
            return None
        if isinstance(node, yaml.MappingNode):
            return dict(self._items(node, path, depth))
        if isinstance(node, yaml.SequenceNode):
            return [
                self.convert(child, (*path, index), depth + 1)
                for index, child in enumerate(node.value)
            ]
        if odd := _odd(node):
            self._doubt(path, line, odd)
        try:
            return _scalar(node.tag.removeprefix(_TAG), node.value)
        except ValueError as error:
            self._mistake(path, line, str(error))
            return None

    def _items(
        self, node: yaml.MappingNode, path: KeyPath, depth: int
    ) -> Iterator[tuple[str, Any]]:
        """Yield the pairs whose key is a text seen for the first time; note the others."""
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if isinstance(key_node, yaml.ScalarNode) and (odd := _odd(key_node)):
                self._doubt(path, line, f"a key {odd}")
            if key_node.tag != f"{_TAG}str" or not isinstance(key_node, yaml.ScalarNode):
                key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "..."
                decimals = isinstance(key, str) and key.isdigit() and value_node.value == ""
                hint = "; decimals stand behind a point, as in 0.1" if decimals else ""
                self._mistake((*path, key), line, f"a key must be text{hint}")
                continue
            key = key_node.value
            if key in first:
                text = f"given twice; the first is on line {first[key]}"
                self._mistake((*path, key), line, text)
                continue
            first[key] = line
            self.parsed.lines[(*path, key)] = line
            yield key, self.convert(value_node, (*path, key), depth + 1)

    def _doubt(self, path: KeyPath, line: int, text: str) -> None:
        self.parsed.doubts.append(Mistake(path, text, line=line))

    def _mistake(self, path: KeyPath, line: int, text: str) -> None:
        self.parsed.mistakes.append(Mistake(path, text, line=line))


def _odd(node: yaml.Node) -> str:
    return odd_scalar(node.value, plain=getattr(node, "style", None) is None)


def _scalar(kind: str, text: str) -> Any:
    """Return the value of a scalar; ValueError says why it has none."""
    if kind in ("int", "float") and len(text) > MAX_NUMBER:
        raise ValueError("the number is too long")
    try:
        if kind == "null":
            return None
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "int":
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if kind == "float":
            return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    except (KeyError, ValueError):
        raise ValueError(f"{shown(text)} is no {kind}") from None
    if kind != "str":
        raise ValueError(f"{shown(text)} is no {kind}")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("the text holds a character that no text may hold")
    return text
