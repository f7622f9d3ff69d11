"""Results of cells -> what is said of each arm: means, differences to the baseline, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tlora_cli.comparison.bootstrap import Interval, interval, paired_difference
from tlora_cli.comparison.cells import Arm, Cell, Plan
from tlora_cli.comparison.tasks import Result
from tlora_cli.evaluation.stored_scores import in_order
from tlora_cli.foundation.bundled import judged_scores

LOWER_IS_BETTER = ("copying", "copied", "drift")
"""Ends of the names of such metrics, beside the scores of bundles."""


@dataclass(frozen=True)
class ArmSummary:
    """One arm over its concepts and seeds.

    Attributes:
        arm: itself.
        cells: finished ones.
        parameters: trained ones; None if unknown, or not the same in all cells.
        metrics: metric -> mean over (concept, seed).
        baseline: what it is compared with, or None.
        differences: metric -> mean of its value less the baseline's, over the pairs that both have.
    """

    arm: Arm
    cells: int
    parameters: int | None
    metrics: dict[str, Interval]
    baseline: Arm | None
    differences: dict[str, Interval]


@dataclass(frozen=True)
class Summary:
    """A whole comparison.

    Attributes:
        plan: what was to be run.
        finished: cells with their results, in the order of the plan.
        failed: name of a cell -> why.
        metrics: names, in the order of the evaluation, a judge's scores first.
        arms: those with finished cells.
    """

    plan: Plan
    finished: list[tuple[Cell, Result]]
    failed: dict[str, str]
    metrics: list[str]
    arms: list[ArmSummary]

    def label(self, arm: Arm) -> str:
        """Return a short name: without what is the same in all arms that have it."""
        parts = [arm.method]
        if arm.rank is not None:
            parts.append(f"r{arm.rank}")
        schedules = {one.schedule for one in self.plan.arms} - {None}
        if arm.schedule and (len(schedules) > 1 or arm.schedule != "linear"):
            parts.append(arm.schedule)
        if arm.variant is not None and len({one.variant for one in self.plan.arms}) > 1:
            parts.append(arm.variant)
        return " ".join(parts)


def summarize(plan: Plan, results: Mapping[str, Result], failed: Mapping[str, str]) -> Summary:
    """Return means and paired differences of the finished cells.

    Args:
        plan: of the comparison.
        results: name of a cell -> result.
        failed: name of a cell -> why.
    """
    finished = [(cell, results[cell.name]) for cell in plan.cells if cell.name in results]
    metrics = in_order(list(dict.fromkeys(n for _, result in finished for n in result.scores)))
    by_arm: dict[Arm, list[tuple[Cell, Result]]] = {}
    for cell, result in finished:
        by_arm.setdefault(cell.arm, []).append((cell, result))
    arms = []
    for arm in plan.arms:
        if arm not in by_arm:
            continue
        own, baseline = by_arm[arm], plan.baselines.get(arm)
        sizes = {result.parameters for _, result in own}
        differences = {}
        if baseline is not None and baseline in by_arm:
            for name in metrics:
                a, b = _by_pair(own, name), _by_pair(by_arm[baseline], name)
                if common := [pair for pair in a if pair in b]:
                    differences[name] = paired_difference(_array(a, common), _array(b, common))
        values = {name: _by_pair(own, name) for name in metrics}
        means = {name: interval(_array(v, list(v))) for name, v in values.items() if v}
        size = sizes.pop() if len(sizes) == 1 else None
        arms.append(ArmSummary(arm, len(own), size, means, baseline, differences))
    return Summary(plan, finished, dict(failed), metrics, arms)


def lower_is_better(metric: str) -> bool:
    """Whether less of a metric is good."""
    judged = judged_scores().get(metric)
    return judged.less_is_better if judged else metric.split()[-1] in LOWER_IS_BETTER


def _by_pair(cells: Sequence[tuple[Cell, Result]], metric: str) -> dict[tuple[str, int], float]:
    """Return a metric's value for each (concept, seed) that has one."""
    found = {cell.pair: result.scores.get(metric) for cell, result in cells}
    return {pair: v for pair, v in found.items() if v is not None and math.isfinite(v)}


def _array(values: Mapping[tuple[str, int], float], pairs: Sequence[tuple[str, int]]) -> np.ndarray:
    return np.array([values[pair] for pair in pairs], dtype=np.float64)
