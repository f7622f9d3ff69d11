"""Raters of known preference on the design of a real study, many studies at once."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tlora_cli.study.design import Concept, Method, Pair, Study
from tlora_cli.study.raters import Rater, check_rater
from tlora_cli.study.shares import Answers
from tlora_cli.study.trials import EQUAL, PAIR, Trial, trials_of
from tlora_cli.study.votes import LEFT, QUESTIONS, RIGHT, SAME, Vote

PREFERENCE = 0.7
BY_RATER, BY_CONCEPT, BY_PAIR = 0.06, 0.08, 0.04
"""How far raters, concepts and pairs differ from the mean, on either side."""


def paper_study(concepts: int = 10, each: int = 60, total: int = 300) -> Study:
    """Return a study in memory: two methods, and as many pairs of every concept."""
    pairs = [Pair(n, 1, n % concepts, "", f"a{n}", f"b{n}") for n in range(total)]
    named = tuple(Concept(f"c{n}", "dog", ()) for n in range(concepts))
    methods = (Method("tlora", "tlora"), Method("lora", "lora"))
    return Study(Path("none"), 0, each, methods, named, tuple(pairs))


class Crowd:
    """The design that raters see, as arrays; each call of `answers` is a study of its own."""

    def __init__(self, study: Study, raters: int) -> None:
        seen = [
            (number, trial)
            for number in range(raters)
            for trial in trials_of(study, number)
            if trial.kind == PAIR
        ]
        self.raters = np.array([number for number, _ in seen])
        self.left = np.array([trial.first_left for _, trial in seen])
        self.pairs = np.array([trial.pair for _, trial in seen])
        self.concepts = np.array([study.pairs[trial.pair].concept for _, trial in seen])

    def answers(self, draw: Generator, side: float = 0.0, careless: int = 0) -> Answers:
        """Return what they answer.

        Args:
            draw: random numbers.
            side: how much likelier the left picture is chosen, whatever it is, and the right less.
            careless: number of raters, the first ones, who throw a coin.
        """
        chance = (
            PREFERENCE
            + _spread(draw, BY_RATER, self.raters)
            + _spread(draw, BY_CONCEPT, self.concepts)
            + _spread(draw, BY_PAIR, self.pairs)
            + np.where(self.left, side, -side)
        )
        chance[self.raters < careless] = 0.5
        values = (draw.random(len(chance)) < chance).astype(float)
        return Answers(values, self.left, self.raters, self.concepts, self.pairs)


def _spread(draw: Generator, width: float, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    drawn: NDArray[np.float64] = draw.uniform(-width, width, int(labels.max()) + 1)[labels]
    return drawn


def checked(study: Study, number: int, kind: str) -> Rater:
    """Return what is said of a simulated rater.

    Args:
        study: the study.
        number: of the rater.
        kind: `careful` (a view of every pair, and one answer in eight is a slip), `leaning` (the
            same, but left where no difference is seen), `coin` or `left`.
    """
    draw = random.Random(f"{kind} {number}")
    views: dict[tuple[int, str], str] = {}
    votes = [
        Vote(number, trial, question, _answer(kind, trial, question, views, draw), 3.0)
        for trial in trials_of(study, number)
        for question in QUESTIONS
    ]
    return check_rater(number, kind, votes)


def _answer(
    kind: str,
    trial: Trial,
    question: str,
    views: dict[tuple[int, str], str],
    draw: random.Random,
) -> str:
    if kind == "left":
        return LEFT
    if kind == "coin":
        return draw.choice((LEFT, RIGHT))
    if trial.kind == EQUAL:
        return SAME
    view = views.setdefault(
        (trial.pair, question), draw.choices(("first", "second", SAME), (0.6, 0.2, 0.2))[0]
    )
    if draw.random() < 0.125:
        view = draw.choice(("first", "second"))
    if view == SAME:
        return LEFT if kind == "leaning" else SAME
    return LEFT if (view == "first") == trial.first_left else RIGHT
