"""Measure the house: rooms, floors and imports that run upward, from the syntax trees.

    python scripts/structure.py               # a table
    python scripts/structure.py --rooms       # the rooms of each floor, from the top down

A room is a package or a module directly in `tlora_cli`. It stands on the floor above the highest
room that it imports; rooms that import one another in a circle share a floor, and each of their
imports but one counts as running upward.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "tlora_cli"
LONG = 320
"""Lines from which on a file is named."""

Rooms = dict[str, set[str]]
"""Room -> rooms that it imports."""


def module_name(path: Path) -> str:
    """Return a file's name inside the package; empty for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (n.removeprefix("tlora_cli.") for n in names if n.startswith("tlora_cli."))


def rooms_of(package: Path = PACKAGE) -> Rooms:
    """Return the rooms of the package and what each imports of the others."""
    found: Rooms = {}
    for path in sorted(package.rglob("*.py")):
        own = module_name(path).partition(".")[0] or "__init__"
        others = {name.partition(".")[0] for name in imported(path)}
        found.setdefault(own, set()).update(others - {own})
    return {room: others & found.keys() for room, others in found.items()}


def floors_of(rooms: Mapping[str, set[str]]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return each room's floor, counted from 1, and the imports that close a circle."""
    floors: dict[str, int] = {}
    upward: list[tuple[str, str]] = []

    def climb(room: str, way: tuple[str, ...]) -> int:
        if room not in floors:
            below = []
            for other in sorted(rooms[room]):
                if other in (*way, room):
                    upward.append((room, other))
                else:
                    below.append(climb(other, (*way, room)))
            floors[room] = 1 + max(below, default=0)
        return floors[room]

    for room in sorted(rooms):
        climb(room, ())
    return floors, upward


def picture(package: Path = PACKAGE) -> str:
    """Return the rooms of each floor from the top down, each with what its docstring says."""
    rooms = rooms_of(package)
    floors, _ = floors_of(rooms)
    lines = []
    for floor in range(max(floors.values()), 0, -1):
        number = f"{floor:>2}"
        for room in sorted(room for room in rooms if floors[room] == floor):
            path = package / room / "__init__.py" if (package / room).is_dir() else None
            path = path or package / f"{room}.py"
            told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            lines.append(f"{number}  {room:<12} {told.splitlines()[0]}")
            number = "  "
    return "\n".join(lines)


def main() -> None:
    """Print the table, or the picture."""
    if "--rooms" in sys.argv[1:]:
        print(picture())
        return
    rooms = rooms_of()
    floors, upward = floors_of(rooms)
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    print(f"rooms directly in tlora_cli  {len(rooms)}")
    print(f"floors                       {max(floors.values())}")
    print(f"imports that run upward      {len(upward)}")
    for room, other in upward:
        print(f"  {room} -> {other}")
    print(f"lines of Python              {sum(lines.values())}")
    for path, count in sorted(lines.items(), key=lambda item: -item[1]):
        if count > LONG:
            print(f"  {path.relative_to(PACKAGE.parent)} has {count}")


if __name__ == "__main__":
    main()
