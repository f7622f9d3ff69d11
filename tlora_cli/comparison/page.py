"""The page of a comparison: one HTML file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence

from tlora_cli.comparison.bootstrap import LEAST_PAIRS, RESAMPLES, Interval
from tlora_cli.comparison.pareto import Point, pareto_svg
from tlora_cli.comparison.progress import clock
from tlora_cli.comparison.sheets import Sheet, sheets
from tlora_cli.comparison.summary import ArmSummary, Summary, lower_is_better
from tlora_cli.comparison.tables import missing

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
NOTHING = "&ndash;"

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8881; --good: #1a7f45; --bad: #c0392b;
  --back: #fff; --ink: #1b1b1f; }
@media (prefers-color-scheme: dark) {
  :root { --good: #55c88a; --bad: #ff7b6b; --back: #17181b; --ink: #e8e8ea; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 0 auto;
  padding: 1.5rem 1rem 3rem; background: var(--back); color: var(--ink); }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { max-width: 62rem; margin: .4rem 0; } .note { font-size: .85rem; opacity: .8; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; vertical-align: top; }
th { font-weight: 600; } thead th { border-bottom: 1px solid var(--line); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--back); z-index: 1; }
td small { display: block; opacity: .7; font-size: .78rem; }
.up { color: var(--good); font-weight: 600; } .down { color: var(--bad); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr));
  gap: 1rem 2rem; }
.pareto { width: 100%; height: auto; display: block; }
.pareto text { fill: currentColor; font-size: 13px; opacity: .85; } .pareto .name { opacity: 1; }
.pareto .rule { stroke: currentColor; opacity: .14; }
.pareto .front { fill: none; stroke: currentColor; opacity: .45; stroke-dasharray: 5 4; }
.pareto .series { fill: none; stroke: var(--c); opacity: .45; }
.pareto .bar { stroke: var(--c); opacity: .55; } .pareto .dot { fill: var(--c); }
.pareto .best { stroke: currentColor; stroke-width: 2; } .pareto .mark { font-size: 12px; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0;
  margin: .2rem 0; font-size: .9rem; }
.legend i { display: inline-block; width: .75em; height: .75em; border-radius: 50%;
  background: var(--c); margin-right: .4em; }
.sheet th, .sheet td { white-space: normal; text-align: left; padding: .3rem; min-width: 7.4rem; }
.sheet th:first-child { min-width: 8rem; max-width: 13rem; font-weight: 400; font-size: .85rem; }
.sheet img { width: 7rem; height: auto; display: block; border-radius: 4px; }
.sheet thead th { vertical-align: bottom; }
.tiny img { image-rendering: pixelated; }
@media (max-width: 40rem) { body { padding: 1rem .6rem 2rem; } h1 { font-size: 1.3rem; }
  .pareto text { font-size: 22px; } .pareto .mark { font-size: 20px; }
  .sheet th, .sheet td { min-width: 5.2rem; } .sheet img { width: 5rem; }
  .sheet th:first-child { min-width: 5.5rem; max-width: 6.5rem; font-size: .75rem; } }
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
    parts = [f"<h1>{_text(title)}</h1><p>{_text(counts)}</p>"]
    if gone := missing(summary):
        reasons = {name: summary.failed.get(name, "not run") for name in gone}
        items = "".join(f"<li>{_text(n)}: {_text(why)}</li>" for n, why in reasons.items())
        parts.append(f'<p class="down">Without a result:</p><ul>{items}</ul>')
    if summary.arms:
        parts += [_plots(summary), _means(summary), _differences(summary), _costs(summary)]
        parts.append(_sheets(summary))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(part for part in parts if part)
        + "</body></html>\n"
    )


def _text(text: str) -> str:
    return html.escape(text)


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


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], kind: str = "") -> str:
    top = "".join(f"<th>{head}</th>" for head in heads)
    body = "".join(
        f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for first, cells in rows
    )
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _means(summary: Summary) -> str:
    heads = ["arm", "cells", *map(_head, summary.metrics)]
    rows = [
        (
            _text(summary.label(one.arm)),
            [str(one.cells), *(_value(one.metrics.get(name)) for name in summary.metrics)],
        )
        for one in summary.arms
    ]
    note = (
        "An arm is a method with its rank, schedule and variant. "
        "Means over (concept, seed); under each the 95% interval of a bootstrap over these pairs, "
        f"{RESAMPLES:,} resamples. ↓: less is better. With few pairs the intervals are too narrow."
    )
    return f'<h2>Scores</h2><p class="note">{note}</p>{_table(heads, rows)}'


def _differences(summary: Summary) -> str:
    compared = [one for one in summary.arms if one.differences and one.baseline]
    if not compared:
        return ""
    heads = ["arm", "less baseline", "pairs", *map(_head, summary.metrics)]
    rows = []
    for one in compared:
        assert one.baseline is not None
        pairs = max(value.count for value in one.differences.values())
        cells = [_text(summary.label(one.baseline)), str(pairs)]
        for name in summary.metrics:
            value = one.differences.get(name)
            better = value is not None and (value.mean < 0) == lower_is_better(name)
            cells.append(_value(value, signed=True, better=better))
        rows.append((_text(summary.label(one.arm)), cells))
    note = (
        "Each cell less the baseline's cell of the same concept and seed. Colored where the 95% "
        f"interval of the paired difference, of at least {LEAST_PAIRS} pairs, excludes zero: green "
        "for better, red for worse. Of many differences some are colored by chance."
    )
    return f'<h2>Differences to the baseline</h2><p class="note">{note}</p>{_table(heads, rows)}'


def _head(metric: str) -> str:
    return _text(metric) + (" ↓" if lower_is_better(metric) else "")


def _value(value: Interval | None, signed: bool = False, better: bool = False) -> str:
    if value is None:
        return NOTHING
    sign = "+" if signed else ""
    text = f"{value.mean:{sign}.3f}"
    if value.low is None or value.high is None:
        return text
    if signed and value.tells:
        text = f'<span class="{"up" if better else "down"}">{text}</span>'
    return f"{text}<small>{value.low:{sign}.3f} … {value.high:{sign}.3f}</small>"


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
            _text(", ".join(devices)) or NOTHING,
        ]
        rows.append((_text(summary.label(one.arm)), cells))
    heads = ["arm", "trained parameters", "steps", "training, mean", "peak memory", "device"]
    note = (
        "Time in training steps alone, and the peak memory of training: the GPU's, or the whole "
        "process's on a CPU. Cells that run at the same time slow one another."
    )
    return f'<h2>Cost</h2><p class="note">{note}</p>{_table(heads, rows)}'


# --- pictures -------------------------------------------------------------------------------------


def _sheets(summary: Summary) -> str:
    made, left_out = sheets(summary)
    if not made:
        return ""
    note = f"Every row has one prompt and one noise. {left_out}"
    return f'<h2>The same prompts, the same seeds</h2><p class="note">{_text(note)}</p>' + "".join(
        _sheet(summary, one) for one in made
    )


def _sheet(summary: Summary, sheet: Sheet) -> str:
    heads = [_img(sheet.training, f"training picture of {sheet.concept}") + "learned from"]
    heads += [_text(summary.label(arm)) for arm in sheet.arms]
    rows = [
        (_text(prompt), [_img(data, prompt) for data in pictures])
        for prompt, pictures in sheet.rows
    ]
    title = f"{sheet.concept}, training seed {sheet.seed}"
    tiny = all(cell.recipe.train.resolution <= 128 for cell in summary.plan.cells)
    kind = "sheet tiny" if tiny else "sheet"
    return f"<h3>{_text(title)}</h3>{_table(heads, rows, kind)}"


def _img(data: str, alt: str) -> str:
    return f'<img alt="{_text(alt)}" src="{data}">' if data else NOTHING
