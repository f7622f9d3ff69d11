"""A summary as files: cells.csv, summary.csv, summary.json, summary.md, costs.csv.

The first four depend on nothing but the cells' results, so they are the same however often the
comparison was interrupted. Times and memory, which no two runs share, stand in costs.csv.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlora_cli.comparison.bootstrap import LEAST_PAIRS, RESAMPLES, Interval
from tlora_cli.comparison.cells import Arm
from tlora_cli.comparison.summary import ArmSummary, Summary
from tlora_cli.files import write_text

DIGITS = 6


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


def markdown(summary: Summary) -> str:
    """Return a table of means, and one of differences to the baseline."""
    lines = [
        "Means over (concept, seed) with 95% bootstrap intervals.",
        "",
        *_table(summary, summary.arms, lambda one: one.metrics, signed=False),
    ]
    compared = [one for one in summary.arms if one.differences]
    if compared:
        lines += [
            "",
            f"Differences to the baseline, on the same concepts and seeds; * where the interval of "
            f"at least {LEAST_PAIRS} pairs excludes zero.",
            "",
            *_table(summary, compared, lambda one: one.differences, signed=True),
        ]
    if gone := missing(summary):
        lines += ["", f"Without a result: {', '.join(gone)}."]
    return "\n".join(lines) + "\n"


def _table(summary: Summary, arms: Sequence[ArmSummary], values: Any, signed: bool) -> list[str]:
    heads = ["arm", "pairs" if signed else "cells", *summary.metrics]
    if signed:
        heads.insert(1, "baseline")
    rows = []
    for one in arms:
        found: Mapping[str, Interval] = values(one)
        row = [summary.label(one.arm)]
        if signed and one.baseline:
            row.append(summary.label(one.baseline))
        row.append(str(max(value.count for value in found.values()) if signed else one.cells))
        row += [shown(found[name], signed) if name in found else "" for name in summary.metrics]
        rows.append(row)
    return [_line(heads), _line(["---"] * len(heads)), *map(_line, rows)]


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


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV, with a column for every key of the first; empty for no rows."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
