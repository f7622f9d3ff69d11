"""The command `tlora compare`."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.cli.going_on import going_on
from tlora_cli.cli.jobs import CellEvents, end_with_failed, make_engine
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.cli.reporter import reporter
from tlora_cli.foundation.packages import PRODUCT


def compare(
    grid: Annotated[Path, typer.Argument(help="Grid file (YAML); docs/compare.md describes it.")],
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Cells at once; default: the grid's, else one a GPU."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on this Ray cluster: auto, HOST:PORT, ray://..."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS=VALUES", help="A part of the grid: seed=0, method=lora,tlora."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUES",
            help="Other values of an axis, or of a key of the recipe: seed=7,8, base=toy-sdxl.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the grid, name its cells, run nothing.")
    ] = False,
) -> None:
    """Train and evaluate a grid of methods, ranks, concepts, seeds and settings, and compare them.

    Leaves tables with paired bootstrap intervals and a page. A comparison that was stopped goes on
    where it was: run it again.
    """
    # Not above: every command of tlora would wait for the models of a grid.
    from tlora_cli.comparison.grid_io import load_grid
    from tlora_cli.comparison.planning import make_plan
    from tlora_cli.comparison.selection import part_of

    chosen, changes = only or [], set_ or []
    plan = part_of(make_plan(load_grid(grid, changes)), chosen)
    if dry_run:
        for cell in plan.cells:
            reporter.inform(cell.name)
        return
    hush_libraries()
    from tlora_cli.comparison.run import compare as run
    from tlora_cli.comparison.tables import overview

    workers = workers or plan.grid.workers
    parts = [word for text in changes for word in ("--set", text)]
    parts += [word for text in chosen for word in ("--only", text)]
    parts += ["--ray", ray] if ray is not None else []
    again = shlex.join([PRODUCT, "compare", str(grid), *parts])
    title = f"Comparison {grid.stem}"
    text = grid.read_text(encoding="utf-8-sig")
    if changes:
        text = f"# {again}\n{text}"
    on_cpu = all(cell.recipe.train.device == "cpu" for cell in plan.cells)
    with going_on(lambda: f"what was done is kept; go on with:\n  {again}"):
        engine = functools.partial(make_engine, workers, ray, on_cpu)
        done = run(plan, text, title, engine, reporter.console(), CellEvents())
    reporter.result(
        "compared",
        [overview(done.summary), *map(str, done.files)],
        files=[str(path) for path in done.files],
        finished=len(done.summary.finished),
        failed=len(done.failed),
    )
    logs = {name: plan.folder / "cells" / name / "log.txt" for name in done.failed}
    end_with_failed("cell", done.failed, logs, again)
