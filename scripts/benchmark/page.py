"""Write the figures of a GPU into docs/performance.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmark.cases import BARE, PUBLISHED

BEGIN, END = (
    "<!-- figures of scripts/bench.py begin -->",
    "<!-- figures of scripts/bench.py end -->",
)
HEAD = (
    "| device | model | method | mode | step ms | to bare | cold, s | peak GB |",
    "|---|---|---|---|---|---|---|---|",
)
SHOWN = (BARE, "lora", f"{PUBLISHED} lora", "tlora", f"{PUBLISHED} tlora")


def fill(folder: Path, page: Path) -> int:
    """Put the figures of a folder's JSON files into the page; return how many rows there are.

    Raises:
        ValueError: if the page has no place for them, or no file in the folder is of a GPU.
    """
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    rows = [row for results in found for row in _rows(results)]
    if not rows:
        raise ValueError(f"no file in {folder} has steps that were timed on a GPU")
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page} has no place for the figures: {BEGIN} and {END}")
    before, rest = text.split(BEGIN)
    table = "\n".join((*HEAD, *rows))
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    return len(rows)


def _rows(results: dict[str, Any]) -> Iterator[str]:
    about = results.get("about", {})
    if about.get("kind", "cpu") == "cpu":
        return
    model = f"{about['base']}, {8 * about['side']} px, {about['dtype']}, rank {about['rank']}"
    for case in results.get("cases", []):
        if case["method"] not in SHOWN:
            continue
        cold = results.get("cold", {}).get(case["method"]) if case["mode"] == "eager" else None
        cells = (
            about["device"],
            model,
            f"`{case['method']}`",
            case["mode"],
            f"{1e3 * case['step']['median']:.1f}",
            f"{case['step_ratio']['median']:.2f}" if "step_ratio" in case else "",
            f"{cold['seconds']:.0f} ({cold['steps']} steps)" if cold else "",
            f"{case['peak_gb']:.1f}" if "peak_gb" in case else "",
        )
        yield f"| {' | '.join(cells)} |"
