"""Write docs/lab.md: what the grids of configs/lab say about the paper's claims.

    tlora compare configs/lab/ranks.yaml      # any of them, in any order; each can be stopped
    python scripts/lab.py                     # figures, intervals and verdicts of what is there

The claims, and what would decide them, are in scripts/laboratory/claims.py. A grid that was
not run, or not to its end, is said to be so. Its runs are kept as a table beside the page
(docs/lab/GRID.csv), so a grid run elsewhere, or long ago, or in parts, stays on the page: rows of
newer runs take the place of older ones, and rows of other settings than the grid's are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from laboratory import tables
from laboratory.claims import CLAIMS, GRIDS
from laboratory.plots import plot, plot_matched
from laboratory.results import Results
from laboratory.verdicts import Claim, decide, verdict

from tlora_cli.comparison.grid_io import load_grid
from tlora_cli.comparison.planning import make_plan
from tlora_cli.comparison.tasks import task_of
from tlora_cli.foundation.files import write_text

ROOT = Path(__file__).resolve().parent.parent
KEPT = "lab"
"""Folder beside the page: the grids' runs as tables."""
PLACEHOLDER = "<!-- results -->"
MATCHED = (
    "**At the same likeness.** T-LoRA's curve over its steps, and what others do where it is just "
    "as alike (a positive difference, of leak a negative one: better than T-LoRA)."
)
NOTICED = (
    "**Noticed afterwards.** What the schedule alone does, with LoRA's start and with the "
    "orthogonal one. Chosen after the grid was run, so it decides nothing."
)
COSTS = (
    "**What it costs.** Medians of the runs, two at once on two CPU cores, one thread each; memory "
    "is that of the whole process."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "lab", help="grids' folder")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "lab.md")
    options = parser.parse_args()
    head = (Path(__file__).parent / "laboratory" / "head.md").read_text()
    sections, rows = [], []
    kept = options.page.parent / KEPT
    grids = {grid: keys_of(grid) for grid in GRIDS}
    found = {grid: results_of(grid, keys, options.runs, kept) for grid, keys in grids.items()}
    for number, claim in enumerate(CLAIMS, 1):
        results = found[claim.grid]
        ended = "not run"
        if results.rows:
            wanted = len(grids[claim.grid])
            ended = verdict(decide(claim, results))
            if len(results.rows) < wanted:
                ended = f"not finished ({len(results.rows)} of {wanted} runs)"
            sections.append(section(number, claim, found, ended, options.page.parent))
        else:
            sections.append(
                f"## {number}. {claim.title}\n\n{claim.says}\n\nNot run.\n{_again(claim)}"
            )
        rows.append(f"| {number} | {claim.title} | {claim.source} | **{ended}** |")
    overview = "\n".join(["| | claim | paper | verdict |", "|---|---|---|---|", *rows])
    write_text(options.page, head.replace(PLACEHOLDER, overview) + "\n" + "\n".join(sections))
    print(f"wrote {options.page}")


def keys_of(grid: str) -> dict[str, str]:
    """Return the cells of a grid of configs/lab with the digest of all that each depends on."""
    plan = make_plan(load_grid(ROOT / "configs" / "lab" / f"{grid}.yaml"))
    return {cell.name: task_of(cell, plan).key for cell in plan.cells}


def results_of(grid: str, keys: dict[str, str], runs: Path, kept: Path) -> Results:
    """Return a grid's runs, those kept and those that are there; what is new is kept, too."""
    table = kept / f"{grid}.csv"
    before = Results.read(table) if table.exists() else Results([])
    if not (runs / grid / "cells.csv").exists():
        return before.with_fresh(Results([]), keys)
    spectra = any(claim.spectra for claim in CLAIMS if claim.grid == grid)
    results = before.with_fresh(Results.of_runs(runs / grid, spectra=spectra), keys)
    results.write(table)
    return results


def section(number: int, claim: Claim, found: dict[str, Results], ended: str, folder: Path) -> str:
    """Return a claim's part of the page, from the results of all grids."""
    results = found[claim.grid]
    picture = plot(claim, results, folder / "images" / "lab")
    lines = [
        f"## {number}. {claim.title}: {ended}",
        "",
        f"{claim.says} ({claim.source})",
        "",
        f"![{claim.title}](images/lab/{picture})",
        "",
        *tables.means(claim, results),
        "",
        *tables.deciding(claim, results),
    ]
    if claim.curve and found[claim.curve].rows:
        curve = found[claim.curve]
        picture = plot_matched(claim, results, curve, folder / "images" / "lab")
        lines += ["", MATCHED, "", f"![At the same likeness](images/lab/{picture})", ""]
        lines += tables.matched(claim, results, curve)
    if claim.noticed:
        lines += ["", NOTICED, "", *tables.noticed(claim, results)]
    if claim.costs:
        lines += ["", COSTS, "", *tables.costs(claim.costs, results)]
    return "\n".join(lines) + "\n" + _again(claim)


def _again(claim: Claim) -> str:
    grids = dict.fromkeys(grid for grid in (claim.grid, claim.curve) if grid)
    commands = [f"`tlora compare configs/lab/{grid}.yaml`" for grid in grids]
    return f"\nAgain: {', '.join(commands)}\n"


if __name__ == "__main__":
    main()
