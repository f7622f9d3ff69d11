"""`tlora validate` of a grid: its runs, what they cost, and what a paper leaves unsaid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlora_cli.recipe.reading import read_mapping, read_text
from tlora_cli.tools.preflight.findings import Finding, of_error, ok, warning

if TYPE_CHECKING:
    from tlora_cli.comparison.cells import Cell, Plan


def is_grid(file: Path) -> bool:
    """Return whether a file is a grid, and no recipe."""
    return "grid" in read_mapping(read_text(file), str(file), began=True)[0]


def look_at_grid(file: Path, options: Sequence[str], card: int | None) -> Iterator[Finding]:
    """Yield what is found of a grid; nothing is trained, written or downloaded.

    Args:
        file: the grid.
        options: as `tlora compare --set`.
        card: bytes of the card to plan for, in place of the one that is there.

    Raises:
        UserError: naming every mistake of the grid.
    """
    from tlora_cli.comparison.grid_io import load_grid
    from tlora_cli.comparison.pictures import pictures_of
    from tlora_cli.comparison.planning import make_plan
    from tlora_cli.tools.preflight.costs import Job, bytes_of, look_at_costs
    from tlora_cli.tools.preflight.validate import look_at_recipe

    plan = make_plan(load_grid(file, options))
    yield ok("grid", f"{file} is right by itself: {_counted(plan)}")
    yield from _pictures(plan)
    if plan.grid.published:
        yield from (warning("paper", text) for text in plan.grid.published.notes)
    jobs = [Job(cell.recipe, pictures_of(cell, plan)) for cell in plan.cells]
    firsts = {cell.arm: job for cell, job in reversed(list(zip(plan.cells, jobs, strict=True)))}
    arm, largest = max(firsts.items(), key=lambda one: bytes_of(one[1]))
    yield ok("one run", f"the rest is of {arm.name}, the arm that takes most room")
    yield from (
        finding
        for finding in look_at_recipe(largest.recipe, card=card)
        if finding.about not in ("pictures", "disk")
    )
    yield from look_at_costs(jobs, plan.folder, elsewhere=card is not None)


def _counted(plan: Plan) -> str:
    concepts = len({cell.concept for cell in plan.cells})
    seeds = len({cell.seed for cell in plan.cells})
    parts = ((len(plan.arms), "arm"), (concepts, "concept"), (seeds, "seed"))
    named = [f"{count} {name}{'' if count == 1 else 's'}" for count, name in parts]
    return f"{', '.join(named)}: {len(plan.cells)} runs"


def _pictures(plan: Plan) -> Iterator[Finding]:
    """Yield what is wrong or doubtful about the pictures of each concept, and its class."""
    from tlora_cli.foundation.errors import UserError
    from tlora_cli.tools.preflight.image_checks import look_at_pictures

    firsts: dict[str, Cell] = {}
    for cell in plan.cells:
        firsts.setdefault(cell.concept, cell)
    for cell in firsts.values():
        try:
            found = list(look_at_pictures(cell.recipe))
        except UserError as error:
            found = [of_error("pictures", error)]
        yield from (finding for finding in found if finding.level != "ok")
    named = [f"{name} ({cell.recipe.concept.class_name})" for name, cell in firsts.items()]
    yield ok("concepts", f"with their classes: {', '.join(named)}")
