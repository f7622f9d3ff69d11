"""The pieces of a benchmark: what is measured together, and what comes first when time is short."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmark.cases import BARE, MODES, PUBLISHED

ROOT = Path(__file__).resolve().parents[2]
START, STEPS, COLD, TESTS = "start", "steps", "cold", "tests"
PARTS = (START, STEPS, COLD, TESTS)
EAGER, COMPILED, RECORDED = MODES

Wanted = tuple[str, str]
"""A method, or another name that `cases.make_case` knows, and a mode."""


@dataclass(frozen=True)
class Piece:
    """One thing to measure.

    Attributes:
        part: one of `PARTS`.
        base: of the models; empty for the tests.
        wanted: what is timed in turns, for `STEPS`; methods for `COLD`.
        least: seconds that it hardly does without; with less left it isn't begun.
    """

    part: str
    base: str = ""
    wanted: Sequence[Wanted] = ()
    least: float = 30.0


@dataclass
class Clock:
    """The time that there is.

    Attributes:
        seconds: in all; None: as long as it takes.
    """

    seconds: float | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until the end; infinite if there is none."""
        if self.seconds is None:
            return float("inf")
        return self.seconds - (time.monotonic() - self.began)


def all_of_it(bases: Sequence[str], parts: Sequence[str], wanted: Sequence[Wanted],
              cold: Sequence[str]) -> list[Piece]:  # fmt: skip
    """Return everything, a base after the other, all cases of a base in turns with each other."""
    found = []
    for base in bases:
        if START in parts:
            found.append(Piece(START, base))
        if STEPS in parts:
            found.append(Piece(STEPS, base, wanted))
        if COLD in parts:
            found.append(Piece(COLD, base, [(method, EAGER) for method in cold]))
    return found


def by_worth(bases: Sequence[str], parts: Sequence[str], wanted: Sequence[Wanted],
             cold: Sequence[str]) -> list[Piece]:  # fmt: skip
    """Return the same in small pieces, what is asked for most first, with the tests of a GPU."""
    first = ("tlora", EAGER), (f"{PUBLISHED} tlora", EAGER)
    faster = ("tlora", COMPILED), ("tlora", RECORDED)
    plain = ("lora", EAGER), (f"{PUBLISHED} lora", EAGER)
    named = [(BARE, EAGER), *first, *faster, *plain]
    others = [one for one in wanted if one not in named]
    order = [Piece(STEPS, base, first, 60) for base in bases[:1]]
    order.append(Piece(TESTS, least=90))
    order += [Piece(STEPS, base, faster, 120) for base in bases[:1]]
    order += [Piece(STEPS, base, first, 60) for base in bases[1:]]
    order += [Piece(COLD, base, [(method, EAGER)], 150) for method in cold[-1:] for base in bases]
    order += [Piece(STEPS, base, plain, 60) for base in bases]
    order += [Piece(STEPS, base, faster, 120) for base in bases[1:]]
    order += [Piece(COLD, base, [(method, EAGER)], 150) for method in cold[:-1] for base in bases]
    order += [Piece(STEPS, base, [one], 60) for base in bases for one in others]
    order += [Piece(START, base, least=300) for base in bases]
    known = {(BARE, EAGER), *wanted}
    return [kept for piece in order for kept in _kept(piece, parts, known)]


def _kept(piece: Piece, parts: Sequence[str], known: set[Wanted]) -> Iterator[Piece]:
    """Yield a piece with only what was asked for; nothing if that leaves nothing of it."""
    if piece.part not in parts:
        return
    if piece.part != STEPS:
        yield piece
        return
    wanted = [one for one in piece.wanted if one in known]
    if wanted:
        yield Piece(piece.part, piece.base, [(BARE, EAGER), *wanted], piece.least)


def run_all(
    pieces: Sequence[Piece], clock: Clock, run: Callable[[Piece], None], say: Callable[[str], None]
) -> list[Piece]:
    """Run pieces as long as there is time, the first in any case; return those not begun.

    Args:
        pieces: in their order.
        clock: of all of it.
        run: measures a piece and writes what there is.
        say: shows a line.
    """
    left_out = []
    for number, piece in enumerate(pieces):
        if number and clock.left < piece.least:
            left_out.append(piece)
            continue
        began = time.monotonic()
        run(piece)
        say(f"{described(piece)}: {time.monotonic() - began:.0f} s")
    return left_out


def described(piece: Piece) -> str:
    """Return what a piece is, for a line of text."""
    names = ", ".join(" ".join(one) for one in piece.wanted if one[0] != BARE)
    return " ".join(part for part in (piece.base, piece.part, names) if part)


def gpu_tests(seconds: float) -> dict[str, Any]:
    """Run the tests that need a GPU; return how many passed, failed and were skipped.

    Args:
        seconds: after which they are stopped.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={report}"]
        limit = None if seconds == float("inf") else seconds
        began = time.monotonic()
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            return {"stopped after": round(time.monotonic() - began, 1)}
        if not report.exists():
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return {**counted(report.read_text(encoding="utf-8")),
                "seconds": round(time.monotonic() - began, 1)}  # fmt: skip


def counted(report: str) -> dict[str, Any]:
    """Return the counts of a JUnit report, and the names of tests that failed."""
    cases = list(ElementTree.fromstring(report).iter("testcase"))
    failed = [f"{case.get('classname')}::{case.get('name')}" for case in cases
              if case.find("failure") is not None or case.find("error") is not None]  # fmt: skip
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - len(failed) - skipped,
        "failed": failed,
        "skipped": skipped,
    }
