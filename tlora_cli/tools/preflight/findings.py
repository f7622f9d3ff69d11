"""Findings of a look ahead: one thing a line, with its remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tlora_cli.foundation.errors import Status, UserError

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ok; warning: it runs, but perhaps not as meant; problem: it would fail.
        about: what was looked at, in a word or two.
        text: what was found.
        do: the remedy, in the imperative; empty if nothing is to be done.
        kind: of a problem, as the exit status has it.
    """

    level: Level
    about: str
    text: str
    do: str = ""
    kind: Status = Status.MISTAKE


def ok(about: str, text: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding("ok", about, text)


def warning(about: str, text: str, do: str = "") -> Finding:
    """Return a finding that may not be as meant."""
    return Finding("warning", about, text, do)


def problem(about: str, text: str, do: str = "", kind: Status = Status.MISTAKE) -> Finding:
    """Return a finding that makes a run fail."""
    return Finding("problem", about, text, do, kind)


def of_error(about: str, error: UserError) -> Finding:
    """Return the problem that an error tells."""
    named = error.where and error.where not in error.what
    text = f"{error.what} ({error.where})" if named else error.what
    return problem(about, text, error.do, error.kind)


def status_of(findings: Iterable[Finding]) -> Status:
    """Return the exit status: that of the problem to be mended first, the lowest of all."""
    kinds = [finding.kind for finding in findings if finding.level == "problem"]
    return min(kinds, default=Status.DONE)


def count(findings: Iterable[Finding], level: Level) -> int:
    """Return how many findings are of a level."""
    return sum(finding.level == level for finding in findings)


def lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield the findings as printed."""
    for finding in findings:
        indent = " " * (_LEVEL_WIDTH + _ABOUT_WIDTH)
        text = finding.text.replace("\n", f"\n{indent}")
        yield f"{finding.level:{_LEVEL_WIDTH}}{finding.about:{_ABOUT_WIDTH}}{text}"
        if finding.do:
            yield f"{indent}fix: {finding.do}"


_LEVEL_WIDTH, _ABOUT_WIDTH = 9, 17


def summary(findings: Iterable[Finding]) -> str:
    """Return the number of problems and warnings in words."""
    found = list(findings)
    numbers = [(count(found, level), level) for level in _COUNTED]
    told = [f"{number} {level}{'' if number == 1 else 's'}" for number, level in numbers if number]
    return ", ".join(told) or "no problems"


_COUNTED: tuple[Level, ...] = ("problem", "warning")


def as_data(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return plain data for JSON: whether nothing is a problem, and all findings."""
    found = list(findings)
    told = [asdict(one) | {"kind": _kind(one)} for one in found]
    return {"ok": not count(found, "problem"), "findings": told}


def finding_data(finding: Finding) -> dict[str, Any]:
    """Return the fields of one finding as programs are told of it."""
    fields = {"level": finding.level, "about": finding.about, "text": finding.text}
    return {**fields, "fix": finding.do, "kind": _kind(finding)}


def _kind(finding: Finding) -> str | None:
    return finding.kind.word if finding.level == "problem" else None


def gigabytes(size: float) -> str:
    """Return bytes in a readable unit (powers of ten)."""
    return f"{size / 1e9:.1f} GB" if size >= 0.95e9 else f"{size / 1e6:.0f} MB"
