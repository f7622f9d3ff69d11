"""The page of a comparison: one HTML file that needs nothing else."""

from __future__ import annotations

from tlora_cli.comparison.bootstrap import LEAST_PAIRS, RESAMPLES, Interval
from tlora_cli.comparison.pareto import Point, pareto_svg
from tlora_cli.comparison.sheets import Sheet, sheets
from tlora_cli.comparison.summary import ArmSummary, Summary, lower_is_better
from tlora_cli.comparison.tables import missing
from tlora_cli.foundation.durations import clock
from tlora_cli.foundation.pages import NOTHING, document, img, table, text

PLOTS = (
    ("TS*", "ID*"),
    ("clip TS (class)", "clip IS (masked)"),
    ("clip TS (class)", "clip IS"),
    ("clip TS (class)", "dino IS (masked)"),
    ("clip TS (class)", "dino IS"),
    ("siglip TS (class)", "siglip IS (masked)"),
    ("siglip TS (class)", "siglip IS"),
)
"""Text and image similarity, of which the first that there are are plotted."""
MAX_PLOTS = 3

_STYLE = """
td small { display: block; opacity: .7; font-size: .78rem; }
.up { color: var(--good); font-weight: 600; } .down { color: var(--bad); font-weight: 600; }
.pareto .front { fill: none; stroke: currentColor; opacity: .45; stroke-dasharray: 5 4; }
.pareto .series { fill: none; stroke: var(--c); opacity: .45; }
.pareto .bar { stroke: var(--c); opacity: .55; } .pareto .dot { fill: var(--c); }
.pareto .best { stroke: currentColor; stroke-width: 2; } .pareto .mark { font-size: 12px; }
@media (max-width: 40rem) { .pareto text { font-size: 22px; } .pareto .mark { font-size: 20px; } }
"""


def page(summary: Summary, title: str) -> str:
    """Return the page.

    Args:
        summary: of the comparison.
        title: of the page.
    """
    cells = summary.plan.cells
    concepts = list(dict.fromkeys(cell.concept for cell in cells))
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    counts = (
        f"{len(summary.plan.arms)} arms, concepts {', '.join(concepts)}, "
        f"{len(seeds)} training seed{'s' * (len(seeds) != 1)}: "
        f"{len(summary.finished)} of {len(cells)} cells finished."
    )
    parts = [f"<h1>{text(title)}</h1><p>{text(counts)}</p>"]
    if gone := missing(summary):
        reasons = {name: summary.failed.get(name, "not run") for name in gone}
        items = "".join(f"<li>{text(n)}: {text(why)}</li>" for n, why in reasons.items())
        parts.append(f'<p class="down">Without a result:</p><ul>{items}</ul>')
    if summary.arms:
        parts += [_plots(summary), _means(summary), _differences(summary), _costs(summary)]
        parts.append(_sheets(summary))
    return document(title, "\n".join(part for part in parts if part), _STYLE)


# --- plots ----------------------------------------------------------------------------------------


def _plots(summary: Summary) -> str:
    drawn: list[str] = []
    for x, y in PLOTS:
        having = [one for one in summary.arms if x in one.metrics and y in one.metrics]
        if having and len(drawn) < MAX_PLOTS:
            points = [_point(summary, one, x, y) for one in having]
            drawn.append(f"<div>{pareto_svg(points, x, y)}</div>")
    if not drawn:
        return ""
    note = (
        "Up is nearer to the concept, right is nearer to the prompt. Ringed points, joined by "
        "dashes, are beaten by none in both. Bars are 95% intervals, cut off at the edge; they "
        "hold the differences between concepts, too, which the paired differences below do not. A "
        "line joins the ranks of a method."
    )
    plots = "".join(drawn)
    return f'<h2>Image against text similarity</h2><p class="note">{note}</p>' + (
        f'<div class="plots">{plots}</div>'
    )


def _point(summary: Summary, one: ArmSummary, x: str, y: str) -> Point:
    label = summary.label(one.arm)
    rank = "" if one.arm.rank is None else f"r{one.arm.rank}"
    series = " ".join(part for part in label.split(" ") if part != rank)
    return Point(series, rank or label, label, one.metrics[x], one.metrics[y])


# --- tables ---------------------------------------------------------------------------------------


def _means(summary: Summary) -> str:
    heads = ["arm", "cells", *map(_head, summary.metrics)]
    rows = [
        (
            text(summary.label(one.arm)),
            [str(one.cells), *(_value(one.metrics.get(name)) for name in summary.metrics)],
        )
        for one in summary.arms
    ]
    note = (
        "An arm is a method with its rank, schedule and variant. "
        "Means over (concept, seed); under each the 95% interval of a bootstrap over these pairs, "
        f"{RESAMPLES:,} resamples. ↓: less is better. With few pairs the intervals are too narrow."
    )
    return f'<h2>Scores</h2><p class="note">{note}</p>{table(heads, rows)}'


def _differences(summary: Summary) -> str:
    compared = [one for one in summary.arms if one.differences and one.baseline]
    if not compared:
        return ""
    heads = ["arm", "less baseline", "pairs", *map(_head, summary.metrics)]
    rows = []
    for one in compared:
        assert one.baseline is not None
        pairs = max(value.count for value in one.differences.values())
        cells = [text(summary.label(one.baseline)), str(pairs)]
        for name in summary.metrics:
            value = one.differences.get(name)
            better = value is not None and (value.mean < 0) == lower_is_better(name)
            cells.append(_value(value, signed=True, better=better))
        rows.append((text(summary.label(one.arm)), cells))
    note = (
        "Each cell less the baseline's cell of the same concept and seed. Colored where the 95% "
        f"interval of the paired difference, of at least {LEAST_PAIRS} pairs, excludes zero: green "
        "for better, red for worse. Of many differences some are colored by chance."
    )
    return f'<h2>Differences to the baseline</h2><p class="note">{note}</p>{table(heads, rows)}'


def _head(metric: str) -> str:
    return text(metric) + (" ↓" if lower_is_better(metric) else "")


def _value(value: Interval | None, signed: bool = False, better: bool = False) -> str:
    if value is None:
        return NOTHING
    sign = "+" if signed else ""
    shown = f"{value.mean:{sign}.3f}"
    if value.low is None or value.high is None:
        return shown
    if signed and value.tells:
        shown = f'<span class="{"up" if better else "down"}">{shown}</span>'
    return f"{shown}<small>{value.low:{sign}.3f} … {value.high:{sign}.3f}</small>"


def _costs(summary: Summary) -> str:
    """Return the mean cost of each arm's cells."""
    rows = []
    for one in summary.arms:
        own = [result for cell, result in summary.finished if cell.arm == one.arm]
        seconds = [r.seconds for r in own if r.seconds is not None]
        memory = [r.memory_gb for r in own if r.memory_gb is not None]
        steps = sorted({r.steps for r in own if r.steps is not None})
        devices = sorted({r.device for r in own if r.device is not None})
        cells = [
            NOTHING if one.parameters is None else f"{one.parameters:,}",
            " or ".join(map(str, steps)) or NOTHING,
            clock(sum(seconds) / len(seconds)) if seconds else NOTHING,
            f"{max(memory):.2f} GB" if memory else NOTHING,
            text(", ".join(devices)) or NOTHING,
        ]
        rows.append((text(summary.label(one.arm)), cells))
    heads = ["arm", "trained parameters", "steps", "training, mean", "peak memory", "device"]
    note = (
        "Time in training steps alone, and the peak memory of training: the GPU's, or the whole "
        "process's on a CPU. Cells that run at the same time slow one another."
    )
    return f'<h2>Cost</h2><p class="note">{note}</p>{table(heads, rows)}'


# --- pictures -------------------------------------------------------------------------------------


def _sheets(summary: Summary) -> str:
    made, left_out = sheets(summary)
    if not made:
        return ""
    note = f"Every row has one prompt and one noise. {left_out}"
    return f'<h2>The same prompts, the same seeds</h2><p class="note">{text(note)}</p>' + "".join(
        _sheet(summary, one) for one in made
    )


def _sheet(summary: Summary, sheet: Sheet) -> str:
    heads = [img(sheet.training, f"training picture of {sheet.concept}") + "learned from"]
    heads += [text(summary.label(arm)) for arm in sheet.arms]
    rows = [
        (text(prompt), [img(data, prompt) for data in pictures]) for prompt, pictures in sheet.rows
    ]
    title = f"{sheet.concept}, training seed {sheet.seed}"
    tiny = all(cell.recipe.train.resolution <= 128 for cell in summary.plan.cells)
    kind = "sheet tiny" if tiny else "sheet"
    return f"<h3>{text(title)}</h3>{table(heads, rows, kind)}"
