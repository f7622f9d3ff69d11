"""Write docs/lab.md: what the grids of configs/lab say about the paper's claims.

    tlora compare configs/lab/ranks.yaml      # any of them, in any order; each can be stopped
    python scripts/lab.py                     # figures, intervals and verdicts of what is there
    python scripts/lab.py --html lab.html     # the page as HTML, too: one file with its plots
    python scripts/lab.py --only seed=0,7 --only concept=pip --page part.md      # of a part of it

The claims, and what would decide them, are in scripts/laboratory/claims.py. A grid that was
not run, or not to its end, is said to be so. Its runs are kept as a table beside the page
(docs/lab/GRID.csv), so a grid run elsewhere, or long ago, or in parts, stays on the page: rows of
newer runs take the place of older ones. Rows of other settings than the grid's are left out, and
told. Rows of other seeds and concepts (`tlora compare --set seed=7`) are kept; `--only` shows them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from laboratory import tables
from laboratory.claims import CLAIMS, GRIDS
from laboratory.plots import plot, plot_matched
from laboratory.results import ARM, Pair, Results, Row
from laboratory.subsets import Part, not_shown, unknown
from laboratory.verdicts import Claim, decide, measured, named, verdict

from tlora_cli.comparison.grid_io import load_grid
from tlora_cli.comparison.planning import make_plan
from tlora_cli.comparison.tasks import task_of
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_text
from tlora_cli.foundation.pages.markdown import markdown_page

ROOT = Path(__file__).resolve().parent.parent
EARLIER = "lab_world1.md"
"""The page of what was measured on the bases of world 1."""
KEPT = "lab"
"""Folder beside the page: the grids' runs as tables."""
PLACEHOLDER = "<!-- results -->"
PART_HEAD = """\
# A part of the laboratory

Only runs of {}. Claims and what decides them are those of docs/lab.md; with fewer runs the
intervals are wider, and a verdict is on these runs only.

<!-- results -->
"""
UNDECIDED = "None of what decides can be told from these runs."
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


@dataclass(frozen=True)
class Found:
    """The runs of a grid.

    Attributes:
        shown: those that the page is about.
        curve: those of the same concepts and seeds, of all arms; for what is compared with them.
        wanted: how many there would be.
        told: lines on those that it isn't about.
        rows: all whose settings are the grid's.
    """

    shown: Results
    curve: Results
    wanted: int
    told: list[str]
    rows: list[Row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "lab", help="grids' folder")
    parser.add_argument("--page", type=Path, help="default: docs/lab.md")
    parser.add_argument("--only", action="append", default=[], metavar="AXIS=VALUES")
    parser.add_argument("--html", type=Path, help="also write the page as one HTML file")
    options = parser.parse_args()
    if options.only and options.page is None:
        parser.error("--only makes another page than docs/lab.md: name it with --page FILE")
    page = options.page or ROOT / "docs" / "lab.md"
    kept = (ROOT / "docs" if options.only else page.parent) / KEPT
    try:
        write_page(page, options.runs, kept, Part.of(options.only))
    except UserError as error:
        parser.error(str(error))
    print(f"wrote {page}")
    if options.html:
        text = page.read_text(encoding="utf-8")
        write_text(options.html, markdown_page(text, page.parent, "The laboratory"))
        print(f"wrote {options.html}")


def write_page(page: Path, runs: Path, kept: Path, part: Part) -> None:
    """Write the page of all runs, or of a part of them.

    Raises:
        UserError: if the part is of values that no run has.
    """
    found = {grid: found_of(grid, runs, kept, part) for grid in GRIDS}
    part.check([row for one in found.values() for row in one.rows])
    sections, rows, earlier = [], [], earlier_verdicts()
    for number, claim in enumerate(CLAIMS, 1):
        results, ended = found[claim.grid], "not run"
        if results.shown.rows:
            ended = verdict(decide(claim, results.shown))
            if len(results.shown.rows) < results.wanted:
                ended = f"not finished ({len(results.shown.rows)} of {results.wanted} runs)"
            curve = found[claim.curve].curve if claim.curve else Results([])
            text = section(number, claim, results.shown, curve, ended, page)
        else:
            text = f"## {number}. {claim.title}\n\n{claim.says}\n\nNot run.\n{_again(claim)}"
        sections.append(text + "".join(f"\n{line}\n" for line in results.told))
        before = earlier.get(claim.title, "")
        rows.append(f"| {number} | {claim.title} | {claim.source} | {before} | **{ended}** |")
    overview = "\n".join(
        ["| | claim | paper | on the first bases | verdict |", "|---" * 5 + "|", *rows]
    )
    head = (Path(__file__).parent / "laboratory" / "head.md").read_text(encoding="utf-8")
    if part.values:
        head = PART_HEAD.format(part)
    write_text(page, head.replace(PLACEHOLDER, overview) + "\n" + "\n".join(sections))
    for grid, one in found.items():
        for line in one.told:
            print(f"{grid}: {line}", file=sys.stderr)


def earlier_verdicts() -> dict[str, str]:
    """Return title of a claim -> the verdict on the first bases, from the page that tells it."""
    text = (ROOT / "docs" / EARLIER).read_text(encoding="utf-8")
    table = re.findall(r"^\| \d+ \| (.+?) \| .+? \| \*\*(.+?)\*\* \|$", text, re.MULTILINE)
    return dict(table)


def keys_of(grid: str, rows: Sequence[Row] = ()) -> dict[str, str]:
    """Return the cells of a grid of configs/lab with the digest of all that each depends on.

    Args:
        grid: its name.
        rows: of runs; cells of their seeds and concepts are among those that are returned, after
            the grid's own.
    """
    keys, pairs = _keys(grid)
    seeds, concepts = (
        [one for one in dict.fromkeys(row[axis] for row in rows) if one not in own]
        for axis, own in (("seed", {str(s) for _, s in pairs}), ("concept", {c for c, _ in pairs}))
    )
    if seeds:
        keys |= _keys(grid, f"seed={','.join(seeds)}")[0]
    for concept in concepts:
        own = [row["seed"] for row in rows if row["concept"] == concept]
        options = (f"concept={concept}", f"seed={','.join(dict.fromkeys(own))}")
        with suppress(UserError):  # no concept of the built-in world: the rows are told as unknown
            keys |= _keys(grid, *options)[0]
    return keys


def _keys(grid: str, *options: str) -> tuple[dict[str, str], set[Pair]]:
    plan = make_plan(load_grid(ROOT / "configs" / "lab" / f"{grid}.yaml", options))
    pairs = {cell.pair for cell in plan.cells}
    return {cell.name: task_of(cell, plan).key for cell in plan.cells}, pairs


def found_of(grid: str, runs: Path, kept: Path, part: Part) -> Found:
    """Return a grid's runs, those kept and those that are there; what is new is kept, too.

    Args:
        grid: its name.
        runs: folder of the grids' folders.
        kept: folder of the tables.
        part: what the page is about.
    """
    table = kept / f"{grid}.csv"
    before = Results.read(table) if table.exists() else Results([])
    fresh = Results([])
    if (runs / grid / "cells.csv").exists():
        spectra = any(claim.spectra for claim in CLAIMS if claim.grid == grid)
        fresh = Results.of_runs(runs / grid, spectra=spectra)
    rows = [*before.rows, *fresh.rows]
    keys, own = keys_of(grid, rows), keys_of(grid)
    known = before.with_fresh(fresh, keys)
    told = unknown(rows, known, keys)
    if part.values:
        shown, curve = (
            Results([row for row in known.rows if one.fits(row)]) for one in (part, part.of_pairs())
        )
        arms = {tuple(row[name] for name in ARM) for row in shown.rows}
        pairs = {(row["concept"], row["seed"]) for row in shown.rows}
        return Found(shown, curve, len(arms) * len(pairs), told, known.rows)
    if fresh.rows:
        known.write(table)
    shown = Results([row for row in known.rows if row["cell"] in own])
    told += not_shown([row for row in known.rows if row["cell"] not in own])
    return Found(shown, shown, len(own), told, known.rows)


def section(
    number: int, claim: Claim, results: Results, curve: Results, ended: str, page: Path
) -> str:
    """Return a claim's part of the page.

    Args:
        number: of the claim.
        claim: itself.
        results: of its grid.
        curve: of the grid with T-LoRA's curve.
        ended: what came out, in a few words.
        page: its file; figures go into a folder of its name.
    """
    drawn = {name: arm for name, arm in claim.arms.items() if any(map(arm.fits, results.rows))}
    missing = [named(name, claim) for name in claim.arms if name not in drawn]
    there = replace(claim, arms=drawn)
    folder = page.parent / "images" / page.stem
    picture = plot(there, results, folder)
    lines = [
        f"## {number}. {claim.title}: {ended}",
        "",
        f"{claim.says} ({claim.source})",
        "",
        f"![{claim.title}](images/{page.stem}/{picture})",
        "",
        *([f"Not among these runs: {'; '.join(missing)}.", ""] if missing else []),
        *tables.means(there, results),
        "",
        *(tables.deciding(claim, results) if decide(claim, results) else [UNDECIDED]),
    ]
    if curve.rows:
        picture = plot_matched(there, results, curve, folder)
        lines += ["", MATCHED, "", f"![At the same likeness](images/{page.stem}/{picture})", ""]
        lines += tables.matched(there, results, curve)
    if measured(claim.noticed, claim, results):
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
