"""The best checkpoint: cosines of its pictures -> likeness, agreement, balance; their file.

Likeness and agreement are cosines put on a scale that has the same two ends everywhere: the base
model's own pictures of the class (likeness 0, agreement 1), and a copier, which draws the training
picture whatever is asked (likeness 1, agreement 0). An untrained and a wholly overfitted adapter so
have a balance of 0, and what lies between can be compared. Every checkpoint draws the same prompts
from the same noise, so differences between checkpoints are paired.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_text
from tlora_cli.foundation.untrusted_json import parse_json

VERSION = 1
LEAST_SPAN = 0.02
"""Least distance, in cosines, between the ends of a scale: where base and copier are nearer, as for
a base that has never seen what the prompts ask for, noise would else be blown up."""
ERRORS = 2.0
"""Standard errors that make a difference of agreement sure. Of 5 pictures, chance alone goes so far
in one of 17 comparisons (Student's t, one side)."""


@dataclass(frozen=True)
class Cosines:
    """The encoders' view of one model's pictures.

    Attributes:
        likeness: encoder -> of each picture of the base prompt, its mean cosine with the training
            pictures, whose background is painted over where they have masks.
        agreement: of each picture of the other prompts, its cosine with the prompt.
    """

    likeness: Mapping[str, Sequence[float]]
    agreement: Sequence[float]


@dataclass(frozen=True)
class Score:
    """A checkpoint.

    Attributes:
        step: of the checkpoint.
        likeness: 0 as the base, 1 as the training picture.
        agreement: with prompts, 1 as the base, 0 as the training picture.
    """

    step: int
    likeness: float
    agreement: float

    @property
    def balance(self) -> float:
        """The harmonic mean of likeness and agreement, each cut to [0, 1]."""
        one, other = (min(1.0, max(0.0, v)) for v in (self.likeness, self.agreement))
        return 2 * one * other / (one + other) if one + other else 0.0


@dataclass
class Record:
    """All that was scored in a run.

    Attributes:
        suite: what was drawn and how, and by which encoders it was looked at.
        base: the base model's pictures of the class; None before they are drawn.
        copier: the training pictures in place of every picture; None as long as `base` is.
        steps: step -> its pictures.
        seconds: step -> time that scoring took, the base's pictures included where they were drawn.
    """

    suite: dict[str, Any]
    base: Cosines | None = None
    copier: Cosines | None = None
    steps: dict[int, Cosines] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    @property
    def _base(self) -> Cosines:
        assert self.base is not None, "drawn before any step is scored"
        return self.base

    @property
    def _copier(self) -> Cosines:
        assert self.copier is not None, "known before any step is scored"
        return self.copier

    def reaches(self, steps: int) -> bool:
        """Whether a checkpoint after that many steps is scored."""
        return any(step >= steps for step in self.steps)

    def scores(self) -> list[Score]:
        """Return the scores, by step."""
        return [
            Score(
                step,
                fmean(self._share(name, values) for name, values in own.likeness.items()),
                1 - fmean(lost(self._base.agreement, own.agreement)) / self.span,
            )
            for step, own in sorted(self.steps.items())
        ]

    @property
    def span(self) -> float:
        """The cosine from the copier's agreement with prompts to the base's."""
        return _span(self._copier.agreement, self._base.agreement)

    def _share(self, name: str, values: Sequence[float]) -> float:
        """Return how much of the way from base to copier an encoder's likeness has come."""
        low, high = self._base.likeness[name], self._copier.likeness[name]
        return (fmean(values) - fmean(low)) / _span(low, high)

    def gain(self, step: int) -> tuple[float, float]:
        """Return how much more alike a step's pictures are than the base's, and the standard error.

        Both on the scale of `Score.likeness`; picture by picture, from the same noise.
        """
        own = self.steps[step].likeness
        shares = [
            [(n - b) / _span(self._base.likeness[name], self._copier.likeness[name])
             for b, n in zip(self._base.likeness[name], values, strict=True)]
            for name, values in own.items()
        ]  # fmt: skip
        means = [fmean(one) for one in zip(*shares, strict=True)]
        known = len(means) > 1  # a single picture says nothing of chance
        return fmean(means), stdev(means) / math.sqrt(len(means)) if known else math.inf

    def loss(self, step: int, other: int) -> tuple[float, float]:
        """Return how much less a step agrees with prompts than another one, and the standard error.

        Both on the scale of `Score.agreement`.
        """
        differences = lost(self.steps[other].agreement, self.steps[step].agreement)
        error = stdev(differences) / math.sqrt(len(differences))
        return fmean(differences) / self.span, error / self.span


def best(scores: Sequence[Score]) -> Score:
    """Return the one of the best balance; of equals the earliest.

    Args:
        scores: at least one, by step.
    """
    return max(scores, key=lambda one: (one.balance, -one.step))


def overfitting(record: Record) -> int | None:
    """Return the first step after the best one that surely agrees less with prompts; None if none.

    Its balance is not above the best one's: what agreement it lost, it did not gain in likeness.
    """
    scores = record.scores()
    chosen = best(scores).step if scores else 0
    for step in (one.step for one in scores if one.step > chosen):
        loss, error = record.loss(step, chosen)
        if loss > ERRORS * error:
            return step
    return None


def lost(before: Sequence[float], now: Sequence[float]) -> list[float]:
    """Return picture by picture how much a value has fallen."""
    return [b - n for b, n in zip(before, now, strict=True)]


def _span(low: Sequence[float], high: Sequence[float]) -> float:
    return max(LEAST_SPAN, fmean(high) - fmean(low))


# --- the file -------------------------------------------------------------------------------------


def write_record(path: Path, record: Record) -> None:
    """Write the file atomically."""
    content = {
        "version": VERSION,
        "suite": record.suite,
        "base": _plain(record.base),
        "copier": _plain(record.copier),
        "steps": {str(step): _plain(record.steps[step]) for step in sorted(record.steps)},
        "seconds": {str(step): record.seconds[step] for step in sorted(record.seconds)},
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_record(path: Path) -> Record | None:
    """Return what the file says; None if there is none.

    Raises:
        UserError: if it is damaged.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']!r}")
        base, copier = _cosines(content["base"]), _cosines(content["copier"])
        steps = {int(step): _cosines(one) for step, one in content["steps"].items()}
        found = {step: one for step, one in steps.items() if one is not None}
        if found and (base is None or copier is None):
            raise ValueError("the ends of the scales are missing")
        seconds = {int(step): float(value) for step, value in content["seconds"].items()}
        return Record(dict(content["suite"]), base, copier, found, seconds)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"the scores of the checkpoints can't be read ({type(error).__name__}: {error})",
            where=str(path),
            do="move the file away; checkpoints are then scored from the present one on",
        ) from error


def _plain(one: Cosines | None) -> dict[str, Any] | None:
    if one is None:
        return None
    likeness = {name: list(values) for name, values in one.likeness.items()}
    return {"likeness": likeness, "agreement": list(one.agreement)}


def _cosines(content: Any) -> Cosines | None:
    if content is None:
        return None
    likeness = {str(k): [float(v) for v in values] for k, values in content["likeness"].items()}
    return Cosines(likeness, [float(value) for value in content["agreement"]])
