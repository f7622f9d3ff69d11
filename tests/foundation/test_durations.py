"""Durations as they are told."""

from __future__ import annotations

import pytest

from tlora_cli.foundation.durations import clock, measured, rounded


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")]
)
def test_as_a_clock_shows_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(99.4, "99 s"), (100, "2 min"), (5940, "99 min"), (6840, "1.9 h")]
)
def test_rounded(seconds: float, text: str) -> None:
    assert rounded(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.0344, "34 ms"), (1, "1.0 s"), (2.72, "2.7 s")])
def test_measured(seconds: float, text: str) -> None:
    assert measured(seconds) == text
