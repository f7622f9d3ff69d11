"""S in the results: its rows, its place in the table, and what is said of its thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tlora_cli.evaluation.encoders import Encoder
from tlora_cli.evaluation.scoring import Mask, PromptedImage, Scores
from tlora_cli.evaluation.success import Pairs, Success, choose, measure
from tlora_cli.evaluation.thresholds import Threshold

LIKENESS = "S likeness"
"""Column of pictures.csv: what a picture's likeness is."""


def add_success(
    found: Scores,
    images: Sequence[PromptedImage],
    encoders: Mapping[str, Encoder],
    pairs: Pairs,
    mask: Mask | None,
) -> None:
    """Put S before the other metrics, with its thresholds; or say why there is none.

    Args:
        found: of all pictures; S is measured on those of the suite.
        images: all pictures, as in `found.rows`.
        encoders: name -> encoder, one of which reads text.
        pairs: what thresholds come from.
        mask: paints backgrounds over, for the likeness.
    """
    by, reader = choose(encoders)
    places = [n for n, one in enumerate(images) if one.group == "suite"]
    if reader is None or not places:
        found.hint = "S is not computed: no picture has a prompt that asks for something else"
        return
    agreeing = torch.tensor([float(found.rows[n][f"{reader} TS (class)"]) for n in places])
    shown = [images[n].picture for n in places]
    if mask is not None:
        shown = [mask(one) for one in shown]
        pairs = Pairs(
            [mask(one) for one in pairs.photographs],
            [mask(one) for one in pairs.others],
            pairs.captioned,
            pairs.likeness,
            pairs.agreement,
        )
    success = measure(shown, agreeing, encoders[by], encoders[reader], pairs)
    shares = success.shares() if success else {}
    if success is None or math.isnan(shares["S"]):
        found.hint = (
            "S is not computed: no threshold can be found from these pairs"
            if success is None
            else "S is not computed: no picture has a likeness and an agreement that are numbers"
        )
        return
    found.summary = {**shares, **found.summary}
    for n, alike, known, hit in zip(places, success.alike, success.measured,
                                    success.hits[0] & success.hits[1], strict=True):  # fmt: skip
        if known:
            found.rows[n] |= {"S": float(hit), LIKENESS: float(alike)}
    likeness = f"{by} likeness" + (" (masked)" if mask else "")
    _say(found, success, likeness, f"{reader} agreement")


def _say(found: Scores, success: Success, likeness: str, agreement: str) -> None:
    count = int(success.measured.sum())
    left_out = len(success.measured) - count
    found.details["success"] = {
        "pictures": count,
        "not measured": left_out,
        "alike": _values(likeness, success.likeness),
        "as asked": _values(agreement, success.agreement),
    }
    gone = f" ({left_out} more can't be measured)" if left_out else ""
    found.notes += [
        f"S: share of {count} pictures{gone} that are alike and as asked at once",
        f"alike: {likeness} of at least {_said(success.likeness)}",
        f"as asked: {agreement} of at least {_said(success.agreement)}",
    ]


def _values(measure: str, threshold: Threshold) -> dict[str, Any]:
    found: dict[str, Any] = {"measure": measure, "threshold": round(threshold.value, 6)}
    if threshold.missed is None or threshold.passed is None:
        return {**found, "from": "given"}
    return {
        **found,
        "from": "best balanced accuracy",
        "real pairs": threshold.real,
        "real pairs below": round(threshold.missed, 6),
        "mismatched pairs": threshold.mismatched,
        "mismatched pairs not below": round(threshold.passed, 6),
    }


def _said(threshold: Threshold) -> str:
    value = f"{threshold.value:.3f}"
    if threshold.missed is None or threshold.passed is None:
        return f"{value}, as given"
    return (
        f"{value}, which best separates pairs: {threshold.missed:.0%} of {threshold.real} real "
        f"ones are below it, {threshold.passed:.0%} of {threshold.mismatched} mismatched ones "
        "are not"
    )
