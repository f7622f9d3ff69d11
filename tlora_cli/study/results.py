"""Votes -> what they say: shares with intervals, agreement, position bias, and who didn't look."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from tlora_cli.study.agreement import alpha
from tlora_cli.study.design import Study
from tlora_cli.study.raters import Rater, check_rater
from tlora_cli.study.shares import Answers, Share, share
from tlora_cli.study.trials import PAIR
from tlora_cli.study.votes import LEFT, QUESTIONS, SAME, Vote, Votes


@dataclass(frozen=True)
class Comparison:
    """The first method against another one, in one question.

    Attributes:
        other: number of the other method.
        question: a name of `votes.QUESTIONS`.
        share: that prefers the first method, without raters that are flagged.
        everyone: with them.
        published: the paper's share; None if it is not known.
    """

    other: int
    question: str
    share: Share
    everyone: Share
    published: float | None


@dataclass(frozen=True)
class Results:
    """All that a report says.

    Attributes:
        study: the study.
        raters: everyone who answered.
        comparisons: by other method, then question.
        agreement: question -> Krippendorff's alpha, without flagged raters; None if there is none.
        left: share of the left side among answers that chose one, without flagged raters.
        votes: all of them.
        names: number of a rater -> name.
    """

    study: Study
    raters: list[Rater]
    comparisons: list[Comparison]
    agreement: dict[str, float | None]
    left: Share
    votes: list[Vote]
    names: dict[int, str]

    @property
    def flagged(self) -> list[Rater]:
        """Raters whose answers are left out of the shares."""
        return [one for one in self.raters if one.careless]


def results_of(study: Study) -> Results:
    """Return what the votes of a study say so far."""
    stored = Votes(study)
    votes, names = stored.all(), stored.names()
    raters = [
        check_rater(number, name, own)
        for number, name in names.items()
        if (own := [vote for vote in votes if vote.rater == number])
    ]
    careless = {one.number for one in raters if one.careless}
    everyone = [vote for vote in votes if vote.trial.kind == PAIR]
    kept = [vote for vote in everyone if vote.rater not in careless]
    comparisons = [
        Comparison(
            other,
            question,
            share(_answers(study, kept, other, question)),
            share(_answers(study, everyone, other, question)),
            published(study, other, question),
        )
        for other in range(1, len(study.methods))
        for question in QUESTIONS
    ]
    agreement = {question: _agreement(kept, question) for question in QUESTIONS}
    return Results(study, raters, comparisons, agreement, _left(study, kept), votes, names)


def published(study: Study, other: int, question: str) -> float | None:
    """Return the paper's share of a comparison; None if methods or question have none."""
    known = _published()
    if study.methods[0].known_as != known["first"]:
        return None
    found: float | None = known.get(question, {}).get(study.methods[other].known_as)
    return found


def source() -> str:
    """Return where the published shares come from."""
    return str(_published()["source"])


@cache
def _published() -> dict[str, Any]:
    text = files("tlora_cli.study").joinpath("published.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _answers(study: Study, votes: Sequence[Vote], other: int, question: str) -> Answers:
    chosen = [
        vote
        for vote in votes
        if vote.question == question and study.pairs[vote.trial.pair].other == other
    ]
    return _as_answers(study, chosen, [vote.prefers_first for vote in chosen])


def _as_answers(study: Study, votes: Sequence[Vote], values: Sequence[float]) -> Answers:
    return Answers(
        np.array(values, dtype=np.float64),
        np.array([vote.trial.first_left for vote in votes], dtype=bool),
        np.array([vote.rater for vote in votes], dtype=np.int64),
        np.array([study.pairs[vote.trial.pair].concept for vote in votes], dtype=np.int64),
        np.array([vote.trial.pair for vote in votes], dtype=np.int64),
    )


def _left(study: Study, votes: Sequence[Vote]) -> Share:
    """Return how often the left side was chosen, over both places of the first method."""
    decided = [vote for vote in votes if vote.answer != SAME]
    return share(_as_answers(study, decided, [float(vote.answer == LEFT) for vote in decided]))


def _agreement(votes: Sequence[Vote], question: str) -> float | None:
    own = [vote for vote in votes if vote.question == question]
    return alpha(
        np.array([vote.prefers_first for vote in own], dtype=np.float64),
        np.array([vote.trial.pair for vote in own], dtype=np.int64),
    )
