"""Docstrings are sentences with a subject, or name a thing: none opens in the middle of one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
OPENINGS = "As|Between|By|From|How|In|Of|On|What|When|Where|Which|Whose|With"


def docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield the strings that stand as statements: of modules, classes, functions, attributes."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.value


def test_no_docstring_opens_in_the_middle_of_a_sentence() -> None:
    files = [file for room in ("tlora_cli", "scripts") for file in (ROOT / room).rglob("*.py")]
    found = [
        (file.relative_to(ROOT), one.lineno, str(one.value))
        for file in files
        for one in docstrings(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert len(files) > 200 and len(found) > 1000
    bare = re.compile(rf"({OPENINGS})\b")
    wrong = [f"{file}:{line}: {text[:60]}" for file, line, text in found if bare.match(text)]
    assert not wrong, "\n".join(wrong)
