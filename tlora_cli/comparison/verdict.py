"""The sentence that a comparison's page begins with: which arm is best, and whether that tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tlora_cli.comparison.bootstrap import LEAST_PAIRS, Interval
from tlora_cli.comparison.summary import Summary, lower_is_better

Kind = Literal["plain", "open"]


def verdict(summary: Summary) -> tuple[Kind, str]:
    """Return how the sentence is marked, and the sentence.

    It is about the first metric, a judge's where there is one; the tables have all of them.

    Args:
        summary: of the comparison.
    """
    arms = [one for one in summary.arms if _lead(summary) in one.metrics]
    if not arms:
        return "open", "Nothing is finished yet, so nothing can be said."
    name = _lead(summary)
    sign = -1 if lower_is_better(name) else 1
    best = max(arms, key=lambda one: sign * one.metrics[name].mean)
    value = best.metrics[name]
    if len(arms) == 1:
        runs = f"{value.count} run{'' if value.count == 1 else 's'}"
        return "plain", (
            f"{summary.label(best.arm)} has {name} {_with_ends(value, '.2f')} over {runs}; "
            "there is nothing to compare it with."
        )
    start = f"{summary.label(best.arm)} has the best {name}, {_with_ends(value, '.2f')}"
    if (difference := best.differences.get(name)) is not None and best.baseline is not None:
        return "plain", f"{start}: {_against(difference, summary.label(best.baseline))}"
    others = [
        one.differences[name]
        for one in arms
        if one.baseline == best.arm and name in one.differences
    ]
    return "plain", f"{start}{_over_others(others)}"


def _lead(summary: Summary) -> str:
    return summary.metrics[0] if summary.metrics else ""


def _with_ends(value: Interval, form: str) -> str:
    if value.low is None or value.high is None:
        return f"{value.mean:{form}}"
    return f"{value.mean:{form}} [{value.low:{form}}, {value.high:{form}}]"


def _against(difference: Interval, baseline: str) -> str:
    """Return the rest of the sentence for an arm that is compared with a baseline."""
    pairs = f"{difference.count} pair{'' if difference.count == 1 else 's'}"
    what = f"{_with_ends(difference, '+.2f')} against {baseline} over {pairs}"
    if difference.tells:
        return f"{what}, which is more than chance."
    if difference.count < LEAST_PAIRS:
        return f"{what}; fewer than {LEAST_PAIRS} pairs tell nothing."
    return f"{what}, which may be chance."


def _over_others(differences: Sequence[Interval]) -> str:
    """Return the rest of the sentence where the best arm is the baseline of others."""
    if not differences:
        return "; it is compared with no other arm."
    worse = sum(one.tells for one in differences)
    return (
        f", and the others are compared with it: {worse} of {len(differences)} "
        f"{'is' if worse == 1 else 'are'} worse by more than chance."
    )
