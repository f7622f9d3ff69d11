"""The page of a comparison: one HTML file that needs nothing else."""

from __future__ import annotations

from tlora_cli.comparison.bootstrap import LEAST_PAIRS, RESAMPLES, Interval
from tlora_cli.comparison.page_images import sheets
from tlora_cli.comparison.pareto import Point, pareto_svg
from tlora_cli.comparison.published import beside
from tlora_cli.comparison.summary import ArmSummary, Summary, lower_is_better
from tlora_cli.comparison.tables import explained, missing
from tlora_cli.comparison.verdict import verdict
from tlora_cli.foundation.bundled import BUNDLES
from tlora_cli.foundation.durations import clock
from tlora_cli.foundation.pages.templates import NOTHING, render

PLOTS = (
    ("clip TS (class)", "clip IS (masked)"),
    ("clip TS (class)", "clip IS"),
    ("clip TS (class)", "dino IS (masked)"),
    ("clip TS (class)", "dino IS"),
    ("siglip TS (class)", "siglip IS (masked)"),
    ("siglip TS (class)", "siglip IS"),
)
"""Text and image similarity, of which the first that there are are plotted, after the scores of
bundles."""
MAX_PLOTS = 3
COLUMNS = 7
"""Most metrics of a table, so that it fits a screen; more are in a table below it."""


def page(summary: Summary, title: str) -> str:
    """Return the page.

    Args:
        summary: of the comparison.
        title: of the page.
    """
    cells = summary.plan.cells
    made, left_out = sheets(summary)
    heads, rows = beside(summary)
    kind, sentence = verdict(summary)
    return render(
        "comparison/page.html.jinja",
        title=title,
        summary=summary,
        kind=kind,
        lead=summary.metrics[0] if summary.metrics else "",
        sentence=sentence,
        concepts=list(dict.fromkeys(cell.concept for cell in cells)),
        seeds=len({cell.seed for cell in cells}),
        missing={name: summary.failed.get(name, "not run") for name in missing(summary)},
        plots=_plots(summary),
        metrics=[f"{name} ↓" if lower_is_better(name) else name for name in summary.metrics],
        parts=[slice(n, n + COLUMNS) for n in range(0, len(summary.metrics), COLUMNS)],
        explained=explained(summary),
        resamples=f"{RESAMPLES:,}",
        least_pairs=LEAST_PAIRS,
        published=summary.plan.grid.published,
        beside=(heads, [(row[0], row[1:]) for row in rows]),
        differences=_differences(summary),
        costs=[(summary.label(one.arm), _costs(summary, one)) for one in summary.arms],
        sheets=[(sheet, [summary.label(arm) for arm in sheet.arms]) for sheet in made],
        left_out=left_out,
        tiny=all(cell.recipe.train.resolution <= 128 for cell in cells),
    )


def _plots(summary: Summary) -> list[str]:
    drawn: list[str] = []
    judged = [one.plotted for one in BUNDLES.values() if one.plotted]
    for x, y in (*judged, *PLOTS):
        having = [one for one in summary.arms if x in one.metrics and y in one.metrics]
        if having and len(drawn) < MAX_PLOTS:
            drawn.append(pareto_svg([_point(summary, one, x, y) for one in having], x, y))
    return drawn


def _point(summary: Summary, one: ArmSummary, x: str, y: str) -> Point:
    label = summary.label(one.arm)
    rank = "" if one.arm.rank is None else f"r{one.arm.rank}"
    series = " ".join(part for part in label.split(" ") if part != rank)
    return Point(series, rank or label, label, one.metrics[x], one.metrics[y])


def _differences(
    summary: Summary,
) -> list[tuple[str, str, int, list[tuple[Interval | None, str]]]]:
    """Return of each compared arm its label, its baseline's, its pairs, and each metric's change.

    With a change stands whether it is `good` or `bad`; if it tells nothing, an empty text.
    """
    rows = []
    for one in summary.arms:
        if not one.differences or one.baseline is None:
            continue
        cells = []
        for name in summary.metrics:
            value = one.differences.get(name)
            kind = ""
            if value is not None and value.tells:
                kind = "good" if (value.mean < 0) == lower_is_better(name) else "bad"
            cells.append((value, kind))
        pairs = max(value.count for value in one.differences.values())
        rows.append((summary.label(one.arm), summary.label(one.baseline), pairs, cells))
    return rows


def _costs(summary: Summary, one: ArmSummary) -> list[str]:
    """Return the mean cost of an arm's cells."""
    own = [result for cell, result in summary.finished if cell.arm == one.arm]
    seconds = [r.seconds for r in own if r.seconds is not None]
    memory = [r.memory_gb for r in own if r.memory_gb is not None]
    steps = sorted({r.steps for r in own if r.steps is not None})
    devices = sorted({r.device for r in own if r.device is not None})
    return [
        NOTHING if one.parameters is None else f"{one.parameters:,}",
        " or ".join(map(str, steps)) or NOTHING,
        clock(sum(seconds) / len(seconds)) if seconds else NOTHING,
        f"{max(memory):.2f} GB" if memory else NOTHING,
        ", ".join(devices) or NOTHING,
    ]
