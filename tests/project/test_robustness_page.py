"""docs/robustness.md: every row of its tables names a test that there is."""

from __future__ import annotations

import re

import pytest
from training_runs import ROOT

PAGE = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)$(.+?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", PAGE)))


def rows(section: str) -> list[str]:
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("|")]
    return lines[2:]


TOLD = ("Words", "Photographs", "Environments", "Messages", "Bases", "LoRA files")


@pytest.mark.parametrize("section", TOLD)
def test_every_row_names_its_test(section: str) -> None:
    found = rows(section)
    assert len(found) >= 4
    for row in found:
        cells = re.split(r"(?<!\\)\|", row)[1:-1]
        assert len(cells) == 3, row
        assert re.fullmatch(r" `tests/[\w/]+\.py(::\w+)?` ", cells[2]), row


@pytest.mark.parametrize("test", TESTS)
def test_the_test_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    assert not name or f"def {name}(" in text
