#!/usr/bin/env python3
"""Write docs/api.md, the reference of the library, from its signatures and docstrings.

python scripts/api_reference.py
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tlora_cli as tlora
from tlora_cli.foundation.files import write_text

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"

HEAD = """\
# The library, name by name

`python scripts/api_reference.py` writes this page from the docstrings of `tlora_cli`, and a test
holds the two together. [library.md](library.md) shows how the names are used together.

```python
import tlora_cli as tlora
```

A name is imported when it is first used, so the import itself takes no time.
"""

ORDER = (
    *("load_recipe", "train", "sample", "load_adapter", "attach"),
    *("Adapter", "RankSchedule", "Recipe", "Outcome", "UserError"),
    *("METHODS", "SCHEDULES", "FAMILIES"),
)
"""All public names, in the order of the page."""
MEMBERS = {
    "Adapter": (
        *("save", "remove", "off", "frozen", "parameters", "parameter_groups", "penalty"),
        *("after_step", "state_dict", "load_state_dict", "enable_gradient_checkpointing", "method"),
    ),
    "RankSchedule": ("active_rank", "mask", "always_full", "title"),
}
"""Members that programs call; other public ones are for the package's own rooms."""
LISTS = {
    "METHODS": "The methods by name, which [methods.md](methods.md) tells of",
    "SCHEDULES": "The kinds of rank schedules by name",
    "FAMILIES": "The families of models by name",
}
MADE = ("Adapter", "Outcome", "Recipe")
"""Classes that other names make; nobody calls them."""
RECIPE = "[recipe.md](recipe.md) has every key; a section is an attribute: `recipe.train.steps`."
SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):\n((?:    .*\n?|\n)*)", re.MULTILINE)
ENTRY = re.compile(r"([\w, *]+|`[^`]+`): (.+)", re.DOTALL)


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *(f"## `{name}`\n\n{_about(name)}" for name in ORDER)])


def _about(name: str) -> str:
    value = getattr(tlora, name)
    if name in LISTS:
        rows = [f"- `{key}`{_words(entry)}" for key, entry in value.items()]
        return "\n".join([f"{LISTS[name]}:", "", *rows, ""])
    parts = [_code(name, value), prose(inspect.getdoc(value) or "")]
    if name == "Recipe":
        parts.append(f"{RECIPE}\n")
    parts += [_member(value, member) for member in MEMBERS.get(name, ())]
    return "\n".join(part for part in parts if part)


def _words(entry: Any) -> str:
    """Return what an entry says of itself, behind a colon; some say nothing."""
    words = getattr(entry, "about", "") or getattr(entry, "title", "")
    return f": {words}" if words else ""


def _member(owner: type, name: str) -> str:
    found = inspect.getattr_static(owner, name)
    text = prose(inspect.getdoc(found) or "")
    if isinstance(found, property):
        return f"### `{owner.__name__}.{name}`\n\n{text}"
    return f"### `{owner.__name__}.{name}()`\n\n{_code(name, found, method=True)}\n{text}"


def _code(name: str, value: Any, method: bool = False) -> str:
    """Return a block with the signature; nothing for what is never called."""
    if name in MADE:
        return ""
    if method and inspect.isgeneratorfunction(inspect.unwrap(value)):
        return f"```python\nwith adapter.{name}():\n    ...\n```\n"
    signature = inspect.signature(value)
    taken = list(signature.parameters.values())[1 if method else 0 :]
    line = f"{name}({', '.join(_shown(taken))})"
    if len(line) > 88:
        inner = textwrap.indent(",\n".join(_shown(taken)), "    ")
        line = f"{name}(\n{inner},\n)"
    returned = signature.return_annotation
    if inspect.isclass(value) or returned is inspect.Signature.empty:
        return f"```python\n{line}\n```\n"
    return f"```python\n{line} -> {_named(returned)}\n```\n"


def _shown(parameters: list[inspect.Parameter]) -> Iterator[str]:
    """Yield parameters as a signature has them, with the star before those by name alone."""
    starred = False
    for one in parameters:
        if one.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        default = "" if one.default is inspect.Parameter.empty else f" = {_value(one.default)}"
        yield f"{one.name}: {_named(one.annotation)}{default}"


def _value(default: Any) -> str:
    return json.dumps(default) if isinstance(default, str) else repr(default)


def _named(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def prose(text: str) -> str:
    """Return a Google-style docstring as Markdown: its sections become lists."""
    return SECTION.sub(_listed, text.rstrip() + "\n").rstrip() + "\n"


def _listed(match: re.Match[str]) -> str:
    title, body = match[1], textwrap.dedent(match[2]).strip("\n")
    entries = re.split(r"\n(?=\S)", body)
    if title in ("Returns", "Yields"):
        return f"**{title}:** {' '.join(body.split())}\n\n"
    return f"**{title}:**\n\n" + "".join(f"- {_entry(one)}\n" for one in entries) + "\n"


def _entry(text: str) -> str:
    joined = " ".join(text.split())
    named = ENTRY.fullmatch(joined)
    if named is None:
        return joined
    names = ", ".join(f"`{name.strip('` ')}`" for name in named[1].split(","))
    return f"{names}: {named[2]}"


if __name__ == "__main__":
    write_text(PAGE, page())
    print(PAGE)
