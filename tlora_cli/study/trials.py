"""The trials of a rater: which pairs, in which order, which picture on which side.

Everything is a function of the study's seed and the rater's number. Raters 0 and 1 see the same
pairs on opposite sides, so do 2 and 3, and so on; later twos take the pairs that come next, so
all get about as many answers. Within a rater, the first method stands on either side equally
often against each method and in each concept, give or take one.

Two kinds of trials check the rater: a pair that comes again later, on the opposite sides, and two
times the same picture.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tlora_cli.study.design import Pair, Study

PAIR, AGAIN, EQUAL = "pair", "again", "equal"
"""Kinds of trials: a pair, the same pair once more, two times the same picture."""
LEAST_AGAIN, LEAST_EQUAL = 6, 4
"""Checks of a rater, at least; one in ten and one in fifteen of his pairs where that is more."""
APART = 8
"""Trials that lie between a pair and its return, at least; fewer in a study of fewer trials."""


@dataclass(frozen=True)
class Trial:
    """Two pictures on a page.

    Attributes:
        position: in the rater's order, from 0 on.
        kind: `pair`, `again` or `equal`.
        pair: number of the pair.
        first_left: whether the first method's picture stands on the left.
        left, right: names of the pictures.
    """

    position: int
    kind: str
    pair: int
    first_left: bool
    left: str
    right: str


def trials_of(study: Study, rater: int) -> list[Trial]:
    """Return the trials of a rater, in his order."""
    two, flipped = divmod(rater, 2)
    total, each = len(study.pairs), study.pairs_each
    chosen = [study.pairs[(two * each + n) % total] for n in range(each)]
    sides = _sides(chosen, random.Random(f"{study.seed} sides {two}"))
    if flipped:
        sides = {number: not left for number, left in sides.items()}
    draw = random.Random(f"{study.seed} order {rater}")
    order = [(PAIR, pair, sides[pair.number]) for pair in chosen]
    draw.shuffle(order)
    returns = min(each, max(LEAST_AGAIN, each // 10))
    early = order[: max(returns, each - APART)]  # the last ones can't come again late enough
    for _, pair, first_left in draw.sample(early, returns):
        place = next(n for n, one in enumerate(order) if one[1] is pair)
        low = min(place + APART + 1, len(order))
        order.insert(draw.randint(low, len(order)), (AGAIN, pair, not first_left))
    for _ in range(max(LEAST_EQUAL, each // 15)):
        order.insert(
            draw.randrange(len(order) + 1), (EQUAL, draw.choice(chosen), draw.random() < 0.5)
        )
    return [_trial(n, *one) for n, one in enumerate(order)]


def _sides(chosen: list[Pair], draw: random.Random) -> dict[int, bool]:
    """Return pair -> whether the first method stands on the left, in turn within each stratum."""
    sides: dict[int, bool] = {}
    starts: dict[int, bool] = {}
    for pair in sorted(chosen, key=lambda one: (one.other, one.concept, draw.random())):
        turn = starts.setdefault(pair.other, draw.random() < 0.5)
        sides[pair.number] = turn
        starts[pair.other] = not turn
    return sides


def _trial(position: int, kind: str, pair: Pair, first_left: bool) -> Trial:
    left, right = (pair.first, pair.second) if first_left else (pair.second, pair.first)
    if kind == EQUAL:
        left = right = left
    return Trial(position, kind, pair.number, first_left, left, right)
