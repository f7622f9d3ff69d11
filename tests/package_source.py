"""The package as its syntax trees tell it: its modules, and what each imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from structure import PACKAGE, module_name


@dataclass(frozen=True)
class Import:
    """One imported module; `eager` if importing the file imports it too."""

    name: str
    line: int
    eager: bool


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
"""Name inside the package ('' is the package itself) -> file."""
COPIED = "formats.comfyui.node"
"""The package that `tlora comfyui` copies: it imports nothing of the house."""


def statements(body: list[ast.stmt], eager: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Yield every statement below, and whether it runs when the file is imported."""
    for statement in body:
        yield statement, eager
        runs = eager and not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from statements(statement.body, False)
            yield from statements(statement.orelse, runs)
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from statements(getattr(statement, field, []), runs)
        for block in (*getattr(statement, "handlers", []), *getattr(statement, "cases", [])):
            yield from statements(block.body, inside)


def imports(module: str) -> list[Import]:
    """Return what a module imports; modules of the package as `tlora_cli.<name>`."""
    found = []
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for statement, eager in statements(tree.body, True):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if module.startswith(COPIED):  # by relative names, so that it runs where it is copied
                base = f"tlora_cli.{COPIED}.{base}" if statement.level else base
            else:
                assert statement.level == 0, f"{module}:{statement.lineno}: import by full name"
            names = [
                f"{base}.{alias.name}" if inside(f"{base}.{alias.name}") in MODULES else base
                for alias in statement.names
            ]
        else:
            continue
        found += [Import(name, statement.lineno, eager) for name in dict.fromkeys(names)]
    return found


def inside(name: str) -> str | None:
    """Return the name inside the package, or None for another library."""
    if name == "tlora_cli":
        return ""
    return name.removeprefix("tlora_cli.") if name.startswith("tlora_cli.") else None
