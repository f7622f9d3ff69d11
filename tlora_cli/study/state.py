"""The state of a rater's page: a pair, and nothing that says which method drew what."""

from __future__ import annotations

from typing import Any

from tlora_cli.study.design import Study
from tlora_cli.study.votes import QUESTIONS, Votes

AHEAD = 2
"""Trials whose pictures the page loads before they are shown."""


def state_of(study: Study, votes: Votes, rater: int, position: int | None = None) -> dict[str, Any]:
    """Return the trial at a position, or the first that isn't answered wholly.

    Args:
        study: the study.
        votes: of the study.
        rater: number of the rater.
        position: in the rater's order.

    Raises:
        ValueError: if there is no such trial.
    """
    trials, answered = votes.trials(rater), votes.answered(rater)
    whole = {place for place, given in answered.items() if len(given) == len(QUESTIONS)}
    total = len(trials)
    if position is None:
        position = next((n for n in range(total) if n not in whole), None)
        if position is None:
            return {"done": True, "total": total, "answered": total}
    if not 0 <= position < total:
        raise ValueError("there is no such pair")
    trial = trials[position]
    pair = study.pairs[trial.pair]
    return {
        "done": False,
        "position": position,
        "total": total,
        "answered": len(whole),
        "prompt": pair.prompt,
        "reference": study.concepts[pair.concept].reference,
        "left": trial.left,
        "right": trial.right,
        "answers": answered.get(position, {}),
        "ahead": [name for t in trials[position + 1 :][:AHEAD] for name in (t.left, t.right)],
    }
