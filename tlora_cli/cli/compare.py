"""The command `tlora compare`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tlora_cli.cli.going_on import going_on
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.foundation.errors import Status
from tlora_cli.foundation.packages import PRODUCT

if TYPE_CHECKING:
    from tlora_cli.comparison.cells import Plan
    from tlora_cli.comparison.engine import Engine


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
            typer.echo(cell.name)
        return
    hush_libraries()
    from tlora_cli.comparison.run import compare as run
    from tlora_cli.comparison.tables import overview

    workers = workers or plan.grid.workers
    console = Console(stderr=True)
    parts = [word for text in changes for word in ("--set", text)]
    parts += [word for text in chosen for word in ("--only", text)]
    again = shlex.join([PRODUCT, "compare", str(grid), *parts])
    title = f"Comparison {grid.stem}"
    text = grid.read_text(encoding="utf-8-sig")
    if changes:
        text = f"# {again}\n{text}"
    with going_on(lambda: f"what was done is kept; go on with:\n  {again}"):
        done = run(plan, text, title, lambda: _engine(plan, workers, ray), console)
    typer.echo(overview(done.summary))
    for path in done.files:
        typer.echo(str(path))
    if failed := done.summary.failed:
        count = "1 cell" if len(failed) == 1 else f"{len(failed)} cells"
        lines = [f"{count} failed:"]
        for name, reason in failed.items():
            lines += [f"  {name}: {reason}".replace("\n", "\n  ")]
            lines.append(f"    log: {plan.folder / 'cells' / name / 'log.txt'}")
        lines.append(f"the others are finished; this runs the failed ones again:\n  {again}")
        typer.echo("\n".join(lines), err=True)
        raise typer.Exit(Status.FAULT)


def _engine(plan: Plan, workers: int | None, ray: str | None) -> Engine:
    """Return what runs the cells."""
    on_cpu = all(cell.recipe.train.device == "cpu" for cell in plan.cells)
    if ray is not None:
        from tlora_cli.comparison.on_ray import RayEngine

        return RayEngine(ray, workers, gpu=not on_cpu)
    from tlora_cli.comparison.local import LocalEngine, visible_gpus

    return LocalEngine(workers, [] if on_cpu else visible_gpus())
