"""Results as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlora_cli.foundation.files import write_text

if TYPE_CHECKING:
    from tlora_cli.evaluation.scoring import Scores  # with its encoders, which tables don't need


def write_tables(folder: Path, scores: Scores, about: Mapping[str, Any]) -> None:
    """Write results.json, pictures.csv and results.md, each whole or not at all."""
    summary = {name: round(value, 6) for name, value in scores.summary.items()}
    content = {**about, "results": summary, **scores.details}
    write_text(folder / "pictures.csv", csv_text(scores.rows))
    write_text(folder / "results.md", markdown(scores.summary, scores.notes))
    # Last: where it stands, the others stand, too.
    write_text(folder / "results.json", json.dumps(content, indent=2) + "\n")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV, with a column for every key that any row has; empty for no rows."""
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown(summary: Mapping[str, float], notes: Sequence[str] = ()) -> str:
    """Return a Markdown table, and under it what is said of its metrics."""
    lines = ["| metric | value |", "|---|---|"]
    lines += [
        f"| {name} | {value:.4f} |" for name, value in summary.items() if not math.isnan(value)
    ]
    if notes:
        lines += ["", *(f"- {note}." for note in notes)]
    return "\n".join(lines) + "\n"
