"""Checks of raters: what tells that someone answered without looking.

The limits stand here, before anyone has voted, and know nothing of methods. One that is overstepped
is enough; each is far from what a careful rater does, so few careful ones are flagged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tlora_cli.study.trials import AGAIN, EQUAL, PAIR
from tlora_cli.study.votes import LEFT, SAME, Vote

LEAST_KEPT = 0.5
"""Share of answers that are the same when a pair comes again; by chance, a third or a half."""
MOST_SEEN = 0.5
"""Share of answers that see a difference between two times the same picture."""
SIDE = 0.001
"""Probability below which choosing one side so often is no chance (binomial test, two sides)."""
LEAST_SECONDS = 0.5
"""Seconds, the median of all answers."""
ENOUGH_AGAIN, ENOUGH_EQUAL, ENOUGH_SIDES, ENOUGH_TIMES = 9, 6, 12, 12
"""Answers of a kind from which on they are looked at."""
BY_SIDE = "overall"
"""The question whose sides are counted: the three of a pair are not independent."""


@dataclass(frozen=True)
class Rater:
    """A rater, and what his answers say of him.

    Attributes:
        number: of the rater.
        name: as he wrote it.
        answers: how many, about pairs.
        kept: share that stayed the same when the pair came again; None if none came.
        seen: share that saw a difference where there was none, likewise.
        left: share of the left side among answers that chose one, likewise.
        seconds: median time of an answer.
        reasons: why he is flagged, in words; none if he isn't.
    """

    number: int
    name: str
    answers: int
    kept: float | None
    seen: float | None
    left: float | None
    seconds: float
    reasons: tuple[str, ...]

    @property
    def careless(self) -> bool:
        """Whether he is flagged."""
        return bool(self.reasons)


def check_rater(number: int, name: str, votes: Sequence[Vote]) -> Rater:
    """Return what the votes of one rater say of him."""
    pairs = [vote for vote in votes if vote.trial.kind == PAIR]
    before = {(v.trial.pair, v.question): v.prefers_first for v in pairs}
    again = [
        v.prefers_first == before[v.trial.pair, v.question]
        for v in votes
        if v.trial.kind == AGAIN and (v.trial.pair, v.question) in before
    ]
    seen = [v.answer != SAME for v in votes if v.trial.kind == EQUAL]
    sides = [v.answer == LEFT for v in pairs if v.question == BY_SIDE and v.answer != SAME]
    seconds = median([v.seconds for v in votes]) if votes else 0.0
    reasons = []
    kept, differences, left = (_share(one) for one in (again, seen, sides))
    if kept is not None and len(again) >= ENOUGH_AGAIN and kept < LEAST_KEPT:
        reasons.append(f"answered {kept:.0%} of what came again as before")
    if differences is not None and len(seen) >= ENOUGH_EQUAL and differences > MOST_SEEN:
        reasons.append(f"saw a difference in {differences:.0%} of identical pictures")
    if (
        left is not None
        and len(sides) >= ENOUGH_SIDES
        and _by_chance(sum(sides), len(sides)) < SIDE
    ):
        reasons.append(f"chose the left side in {left:.0%} of the answers")
    if len(votes) >= ENOUGH_TIMES and seconds < LEAST_SECONDS:
        reasons.append(f"took {seconds:.1f} s for an answer")
    return Rater(number, name, len(pairs), kept, differences, left, seconds, tuple(reasons))


def _share(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None


def _by_chance(times: int, of: int) -> float:
    from scipy.stats import binomtest

    return float(binomtest(times, of).pvalue)
