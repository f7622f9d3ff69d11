"""Durations in words, as the terminal, reports and tables tell them."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """Return a duration as a clock shows it: m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def rounded(seconds: float) -> str:
    """Return about how long something takes: 90 s, 25 min, 1.9 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def measured(seconds: float) -> str:
    """Return how long a short thing took: 340 ms, 2.7 s."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
