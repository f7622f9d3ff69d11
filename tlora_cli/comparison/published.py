"""Figures that were published, beside one's own."""

from __future__ import annotations

from tlora_cli.comparison.cells import Arm
from tlora_cli.comparison.grid import PublishedFigure
from tlora_cli.comparison.summary import Summary


def beside(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of a table: of each arm and metric one's own mean and the published.

    What was not measured, or not published for an arm, is empty; without any there are no rows.
    """
    published = summary.plan.grid.published
    figures = published.figures if published else []
    names = list(dict.fromkeys(name for one in figures for name in one.scores))
    means = {one.arm: one.metrics for one in summary.arms}
    rows = []
    for arm in summary.plan.arms:
        for figure in figures:
            if not _fits(figure, arm):
                continue
            row = [summary.label(arm)]
            for name in names:
                own, told = means.get(arm, {}).get(name), figure.scores.get(name)
                row.append("" if own is None or told is None else f"{own.mean:.3f}")
                row.append("" if told is None else f"{told:.3f}")
            rows.append(row)
    return ["arm", *(head for name in names for head in (name, "published"))], rows


def _fits(figure: PublishedFigure, arm: Arm) -> bool:
    given = figure.model_dump(exclude={"scores"}, exclude_none=True)
    return all(getattr(arm, key) == value for key, value in given.items())
