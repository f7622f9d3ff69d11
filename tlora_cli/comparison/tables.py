"""A summary as files: cells.csv, summary.csv, summary.json, summary.md, costs.csv.

The first four depend on nothing but the cells' results, so they are the same however often the
comparison was interrupted. Times and memory, which no two runs share, stand in costs.csv.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlora_cli.comparison.bootstrap import LEAST_PAIRS, RESAMPLES, Interval
from tlora_cli.comparison.cells import Arm
from tlora_cli.comparison.published import beside
from tlora_cli.comparison.summary import Summary
from tlora_cli.evaluation.result_files import csv_text
from tlora_cli.foundation import bundled
from tlora_cli.foundation.files import write_text

DIGITS = 6
MAIN = (" IS", " IS (masked)", " TS (class)")
"""Ends of the main metrics' names, beside the scores of bundles."""


def write_tables(summary: Summary, folder: Path) -> list[Path]:
    """Write all tables, each whole or not at all; return the files."""
    files = {
        "cells.csv": csv_text(cell_rows(summary)),
        "summary.csv": csv_text(arm_rows(summary)),
        "summary.json": json.dumps(as_dict(summary), indent=1) + "\n",
        "summary.md": markdown(summary),
        "costs.csv": csv_text(cost_rows(summary)),
    }
    for name, text in files.items():
        write_text(folder / name, text)
    return [folder / name for name in files]


def cell_rows(summary: Summary) -> list[dict[str, Any]]:
    """Return one row a cell, with all its scores."""
    return [
        {
            "cell": cell.name,
            **_named(cell.arm),
            "concept": cell.concept,
            "seed": cell.seed,
            "parameters": result.parameters,
            **{name: result.scores.get(name) for name in summary.metrics},
        }
        for cell, result in summary.finished
    ]


def arm_rows(summary: Summary) -> list[dict[str, Any]]:
    """Return one row for each metric of each arm."""
    return [
        {
            **_named(one.arm),
            "parameters": one.parameters,
            "metric": name,
            **_ends(one.metrics[name], ""),
            "baseline": one.baseline.name if one.baseline else None,
            **_ends(one.differences.get(name), "difference "),
        }
        for one in summary.arms
        for name in summary.metrics
        if name in one.metrics
    ]


def cost_rows(summary: Summary) -> list[dict[str, Any]]:
    """Return what each cell's training took."""
    rows = []
    for cell, result in summary.finished:
        each = None
        if result.seconds is not None and result.steps:
            each = round(result.seconds / result.steps, 4)
        rows.append(
            {
                "cell": cell.name,
                **_named(cell.arm),
                "concept": cell.concept,
                "seed": cell.seed,
                "parameters": result.parameters,
                "steps": result.steps,
                "training seconds": result.seconds,
                "seconds a step": each,
                "peak memory GB": result.memory_gb,
                "device": result.device,
            }
        )
    return rows


def as_dict(summary: Summary) -> dict[str, Any]:
    """Return plain values for JSON."""
    return {
        "resamples": RESAMPLES,
        "metrics": summary.metrics,
        "arms": [
            {
                "name": one.arm.name,
                **_named(one.arm),
                "cells": one.cells,
                "parameters": one.parameters,
                "metrics": {name: _ends(value, "") for name, value in one.metrics.items()},
                "baseline": one.baseline.name if one.baseline else None,
                "differences": {name: _ends(value, "") for name, value in one.differences.items()},
            }
            for one in summary.arms
        ],
        "missing": missing(summary),
    }


def missing(summary: Summary) -> list[str]:
    """Return the cells without a result."""
    there = {cell.name for cell, _ in summary.finished}
    return [cell.name for cell in summary.plan.cells if cell.name not in there]


def main_metrics(summary: Summary) -> list[str]:
    """Return the metrics that are read first."""
    judged = bundled.judged_scores()
    found = [name for name in summary.metrics if name in judged or name.endswith(MAIN)]
    return found or summary.metrics


def explained(summary: Summary) -> dict[str, str]:
    """Return what each of the judges' scores in a summary is, in words."""
    judged = bundled.judged_scores()
    return {name: judged[name].about for name in summary.metrics if name in judged}


def markdown(summary: Summary) -> str:
    """Return the main metrics as Markdown: a table of means, and one of differences."""
    metrics = main_metrics(summary)
    heads = ["arm", "cells", *metrics]
    rows = [
        [summary.label(one.arm), str(one.cells), *(_cell(one.metrics, name) for name in metrics)]
        for one in summary.arms
    ]
    lines = [
        "Means over (concept, seed) with 95% bootstrap intervals. summary.csv has all metrics.",
        "",
        *table(heads, rows),
    ]
    if said := explained(summary):
        lines += ["", *(f"- {name}: {about}." for name, about in said.items())]
    rows = [
        [
            summary.label(one.arm),
            summary.label(one.baseline),
            str(max(value.count for value in one.differences.values())),
            *(_cell(one.differences, name, signed=True) for name in metrics),
        ]
        for one in summary.arms
        if one.differences and one.baseline
    ]
    if rows:
        lines += [
            "",
            f"Differences to the baseline, on the same concepts and seeds; * where the interval of "
            f"at least {LEAST_PAIRS} pairs excludes zero.",
            "",
            *table(["arm", "baseline", "pairs", *metrics], rows),
        ]
    heads, rows = beside(summary)
    if rows and summary.plan.grid.published:
        lines += ["", f"Beside {summary.plan.grid.published.source}:", "", *table(heads, rows)]
    if gone := missing(summary):
        lines += ["", f"Without a result: {', '.join(gone)}."]
    return "\n".join(lines) + "\n"


def overview(summary: Summary) -> str:
    """Return the main metrics' means for a terminal; * as in `markdown`."""
    metrics = main_metrics(summary)
    rows = [["", "cells", *metrics]]
    for one in summary.arms:
        row = [summary.label(one.arm), str(one.cells)]
        for name in metrics:
            star = "*" if name in one.differences and one.differences[name].tells else " "
            row.append(f"{one.metrics[name].mean:.3f}{star}" if name in one.metrics else "")
        rows.append(row)
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if n == 0 else text.rjust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [_line(heads), _line(["---"] * len(heads)), *map(_line, rows)]


def _cell(values: Mapping[str, Interval], name: str, signed: bool = False) -> str:
    return shown(values[name], signed) if name in values else ""


def shown(value: Interval, signed: bool = False) -> str:
    """Return a mean and its interval in words: 0.812 [0.790, 0.833]."""
    sign = "+" if signed else ""
    mean = f"{value.mean:{sign}.3f}"
    if value.low is None or value.high is None:
        return mean
    star = "*" if signed and value.tells else ""
    return f"{mean}{star} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _named(arm: Arm) -> dict[str, Any]:
    return {
        "method": arm.method,
        "rank": arm.rank,
        "schedule": arm.schedule,
        "variant": arm.variant,
    }


def _ends(value: Interval | None, prefix: str) -> dict[str, Any]:
    """Return an interval as named numbers; none are left out, so that all rows have them."""
    numbers = (None,) * 3 if value is None else (value.mean, value.low, value.high)
    names = ("mean", "low", "high")
    found = {
        f"{prefix}{name}": None if number is None else round(number, DIGITS)
        for name, number in zip(names, numbers, strict=True)
    }
    return {f"{prefix}pairs": None if value is None else value.count, **found}
