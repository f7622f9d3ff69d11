"""Agreement with tensors recorded from the published code; see reference_runs.py."""

from __future__ import annotations

import pytest
from reference_runs import RUNS, Row, compare_layers, compare_run, compare_schedules


def check(rows: list[Row], count: int) -> None:
    assert len(rows) == count
    wrong = [row for row in rows if not row.difference <= row.allowed]
    assert not wrong, wrong


def test_rank_schedules() -> None:
    check(compare_schedules(), 9)


def test_layers() -> None:
    check(compare_layers(), 3 * 4 + 9 * 5)


@pytest.mark.parametrize("name", RUNS)
def test_runs(name: str) -> None:
    check(compare_run(name), 3 if name == "flux_lora" else 4)
