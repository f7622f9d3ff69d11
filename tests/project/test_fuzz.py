"""A seeded part of `scripts/fuzz.py`: damaged, mistaken and hostile files never end in a traceback.

TLORA_FUZZ multiplies the counts; `scripts/fuzz.py` has the full ones.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from breaking import adapters, folders, lists, pictures, recipes
from breaking.guard import try_all

TIMES = int(os.environ.get("TLORA_FUZZ", "1"))
KINDS = {
    "recipes": (recipes.prepare, 100),
    "adapters": (adapters.prepare, 60),
    "pictures": (pictures.prepare, 15),
    "folders": (folders.prepare, 12),
    "lists": (lists.prepare, 30),
}


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_taken_or_refused(kind: str, tmp_path: Path) -> None:
    prepare, count = KINDS[kind]
    found = try_all(kind, prepare(tmp_path, 1), range(count * TIMES), tmp_path)
    assert not found.faults, str(found)
    assert found.tried == count * TIMES
    assert found.refused > count // 10 and found.taken > count // 20, str(found)
    # No case has written beside its folder.
    assert not (tmp_path / "trap").exists() and not (tmp_path.parent / "x").exists()


def test_a_guarded_case_is_caught_at_whatever_it_does(tmp_path: Path) -> None:
    """The guard itself: an exception, an end, a program, a file elsewhere, too much memory."""

    def grows() -> None:
        block = bytearray(2_100_000_000)
        block[::4096] = b"x" * len(block[::4096])

    def raises() -> None:
        raise KeyError("x")

    outside = tmp_path.parent / "outside"
    cases = {
        "fine": lambda: None,
        "raises": raises,
        "dies": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "starts": lambda: os.system("true"),
        "writes": lambda: outside.write_text("x"),
        "grows": grows,
    }
    names = list(cases)
    inside = tmp_path / "inside"
    inside.mkdir()
    found = try_all("x", lambda n: (names[n], cases[names[n]]), range(len(cases)), inside)
    assert [fault.what for fault in found.faults] == names[1:], str(found)
    assert found.taken == 1
