"""A run imports what it uses: what only some runs need is imported when they need it."""

from __future__ import annotations

import pytest
from package_source import MODULES, imports, inside


def reached(module: str) -> set[str]:
    """Return the modules of the package that importing one imports, itself included."""
    waiting, seen = [module], set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        found = [inside(item.name) for item in imports(current) if item.eager]
        waiting += [name for name in found if name in MODULES]
    return {name for name in seen if name}


@pytest.mark.parametrize("module", ["training.checkpoint_selection", "evaluation.encoders"])
def test_only_runs_that_choose_a_checkpoint_import_encoders(module: str) -> None:
    assert module in MODULES
    assert module not in reached("training.loop")
    assert "evaluation.encoders" in reached("training.checkpoint_selection")


@pytest.mark.parametrize("module", ["comparison.grid", "training.loop"])
def test_commands_wait_for_nothing_that_others_need(module: str) -> None:
    assert module in MODULES
    assert module not in reached("cli.commands")


@pytest.mark.parametrize("name", ["resource", "fcntl", "pwd", "grp", "termios"])
def test_no_module_imports_what_only_unix_has(name: str) -> None:
    users = [m for m in MODULES for item in imports(m) if item.eager and item.name == name]
    assert not users, f"{name} is not there on Windows"
