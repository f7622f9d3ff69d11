"""Scores of a finished evaluation, read from its folder; those of earlier versions completed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tlora_cli.evaluation.pictures_table import read_pictures_table
from tlora_cli.foundation.bundled import JudgedScore, judged_scores
from tlora_cli.foundation.errors import UserError

ROUNDED = 1e-6
"""Scores are stored with six digits."""


def read_scores(folder: Path) -> dict[str, float]:
    """Return metric -> value of an evaluation's folder, a judge's scores first.

    A score that the judge did not count then is computed from what it counted on each picture. It
    is left out, never taken as 0, where pictures.csv is gone or doesn't belong to the results.

    Raises:
        OSError, ValueError, KeyError: if results.json is not one.
    """
    scores: dict[str, float] = json.loads((folder / "results.json").read_text("utf-8"))["results"]
    judged = judged_scores()
    lacking = {
        name: score
        for name, score in judged.items()
        if name not in scores and score.all_of and all(one in scores for one in score.all_of)
    }
    if lacking:
        rows = _rows(folder)
        found = {name: _share(score, rows, scores) for name, score in lacking.items()}
        scores |= {name: share for name, share in found.items() if share is not None}
    return {name: scores[name] for name in in_order(list(scores))}


def in_order(metrics: Sequence[str]) -> list[str]:
    """Return names of metrics, the judges' scores first and as the judges order them."""
    judged = judged_scores()
    first = [name for name in judged if name in metrics]
    return [*first, *(name for name in metrics if name not in judged)]


def _rows(folder: Path) -> list[dict[str, str]]:
    try:
        return read_pictures_table(folder, columns=())
    except UserError:  # shares stay unknown
        return []


def _share(
    score: JudgedScore, rows: Sequence[Mapping[str, str]], scores: Mapping[str, float]
) -> float | None:
    """Return the share of pictures that count in all of the score's parts; None if unknown."""
    try:
        counted = [
            [float(row[name]) for name in score.all_of]
            for row in rows
            if all(row.get(name) for name in score.all_of)
        ]
    except ValueError:
        return None
    if not counted:
        return None
    for name, column in zip(score.all_of, zip(*counted, strict=True), strict=True):
        if not abs(sum(column) / len(column) - scores[name]) <= ROUNDED:
            return None
    return round(sum(all(one == 1 for one in row) for row in counted) / len(counted), 6)
