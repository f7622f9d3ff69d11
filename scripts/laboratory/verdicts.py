"""Claims, and what their contrasts say of them.

A contrast is a paired difference with the sign that the claim expects. A claim is *supported* if
all its contrasts have their 95% interval wholly on the expected side; it *doesn't* hold if none
has, and one at least is wholly on the other side; it holds *in part* if some do and others are on
the other side; otherwise the grid *can't tell*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from laboratory.results import Pick, Results
from tlora_cli.comparison.bootstrap import Interval

LIKENESS = "ID* (base prompt)"
METRICS = {
    "S*": "both at once (S*)",
    "TS*": "follows (TS*)",
    LIKENESS: "is alike (ID*)",
    "leak": "leaks",
}
"""Metric -> title of its panel; those that no run of a grid has are left out."""


@dataclass(frozen=True)
class Contrast:
    """Arm less other arm: more (+1) or less (-1) of a metric is expected."""

    says: str
    metric: str
    arm: Pick
    other: Pick
    expected: int


@dataclass(frozen=True)
class Correlation:
    """Rank correlation of two metrics over a claim's arms: rising (+1) or falling (-1)."""

    says: str
    x: str
    metric: str
    expected: int


@dataclass(frozen=True)
class Claim:
    """A claim and the grid that measures it.

    Attributes:
        name: of its figure.
        grid: name of the file in configs/lab and of the folder in runs/lab.
        title: short.
        source: where the paper says it.
        says: what it says.
        arms: label -> arm, in the order of the plot.
        contrasts: what decides.
        metrics: metric -> title of its panel.
        spectra: whether the adapters themselves are looked at.
        across: arms of a curve have (series, place on the axis) as label, with this axis.
        curve: name of the grid with T-LoRA's curve (`claims.CURVE`), with which the arms are also
            compared where both are equally alike; None: they aren't.
        costs: label -> arm whose parameters, time and memory are told.
        noticed: contrasts that the page tells, too, but that decide nothing: they were chosen after
            the grid was run.
    """

    name: str
    grid: str
    title: str
    source: str
    says: str
    arms: dict[str, Pick]
    contrasts: Sequence[Contrast | Correlation]
    across: str | None = None
    metrics: Mapping[str, str] = field(default_factory=lambda: METRICS)
    spectra: bool = False
    curve: str | None = "steps"
    costs: Mapping[str, Pick] = field(default_factory=dict)
    noticed: Sequence[Contrast] = ()


def named(label: str, claim: Claim) -> str:
    """Return an arm's label in words: where it is on a curve, with the axis."""
    return label.replace("/", f", {claim.across or ''} ")


def verdict(found: Sequence[tuple[Contrast | Correlation, Interval]]) -> str:
    """Return what the contrasts together say of their claim."""
    sides = [
        (1 if interval.mean > 0 else -1) * contrast.expected if interval.tells else 0
        for contrast, interval in found
    ]
    if sides and all(side > 0 for side in sides):
        return "supports"
    if any(side < 0 for side in sides):
        return "in part" if any(side > 0 for side in sides) else "doesn't"
    return "can't tell"


def decide(claim: Claim, results: Results) -> list[tuple[Contrast | Correlation, Interval]]:
    """Return the contrasts that decide a claim and have data, with their differences."""
    return measured(claim.contrasts, claim, results)


def measured(
    contrasts: Sequence[Contrast | Correlation], claim: Claim, results: Results
) -> list[tuple[Contrast | Correlation, Interval]]:
    """Return those of a claim's contrasts that have data, with their differences."""
    found = []
    for contrast in contrasts:
        if isinstance(contrast, Correlation):
            arms = list(claim.arms.values())
            interval = results.rank_correlation(arms, contrast.x, contrast.metric)
        else:
            interval = results.difference(contrast.arm, contrast.other, contrast.metric)
        if interval is not None:
            found.append((contrast, interval))
    return found
