"""The command `tlora batch`."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlora_cli.cli.choices import check_name, completing, either
from tlora_cli.cli.going_on import going_on, same_command
from tlora_cli.cli.jobs import CellEvents, end_with_failed, make_engine
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.cli.recipe import Overrides
from tlora_cli.cli.reporter import reporter
from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.named import NAMED, PHOTO
from tlora_cli.recipe.reading import load_recipe, parse_recipe, read_text

if TYPE_CHECKING:
    from tlora_cli.comparison.batch import Planner
    from tlora_cli.comparison.photo_list import Photo
    from tlora_cli.recipe.models import Recipe


def batch(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|LIST.csv",
            help="A folder of photos; or a list with the columns photo, class, name, whose photos "
            "are named as seen from its folder.",
        ),
    ],
    class_name: Annotated[
        str | None, typer.Option("--class", help="What they show, where the list doesn't say.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model: Hub id, folder, file, toy-sdxl.")
    ] = None,
    named: Annotated[
        str | None,
        typer.Option("--recipe", help=f"{either(NAMED)}.", autocompletion=completing(NAMED)),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Recipe file for all; picture, class and output.dir go.")
    ] = None,
    set_: Overrides = None,
    output: Annotated[Path, typer.Option(help="Folder of all runs and the table.")] = Path("batch"),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Photos at once; default: one a GPU, else one.")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads of each; last bits can depend on it.")
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on this Ray cluster: auto, HOST:PORT, ray://..."),
    ] = None,
) -> None:
    """Train an adapter for each of many photos, several at once.

    Each photo gets the recipe that `tlora train PHOTO` writes, or that of --config. Leaves a folder
    a photo and results.csv. A photo that fails stops no other. Run it again to go on.
    """
    check_name("--recipe", named, NAMED)
    if config is not None and (base or named):
        other = "--base" if base else "--recipe"
        raise UserError(
            f"--config says all of the recipe, and {other} says something of it, too",
            do="leave one of the two out; --set KEY=VALUE changes what a recipe file says",
        )
    from tlora_cli.comparison.photo_list import read_photos

    photos = read_photos(source, class_name)
    options = list(set_ or [])
    hush_libraries()
    from tlora_cli.comparison.batch import Batch, run_batch

    settings: dict[str, Any] = {"set": options, "threads": threads}
    if config is not None:
        text = read_text(config)
        settings["config"] = hashlib.sha256(text.encode()).hexdigest()
        plan: Planner = functools.partial(_of_file, config, options)
    else:
        settings |= {"base": base, "recipe": named or PHOTO}
        plan = _own_recipes(base or "", named or PHOTO, options)
    with going_on(lambda: f"what was done is kept; go on with:\n  {same_command()}"):
        done = run_batch(
            Batch(photos, output, settings, plan, threads),
            functools.partial(make_engine, workers, ray),
            reporter.console(),
            CellEvents(),
        )
    reporter.result(
        "batched",
        f"{done.finished} of {len(photos)} have an adapter: {done.table}",
        table=str(done.table),
        finished=done.finished,
        failed=len(done.failed),
    )
    end_with_failed("photo", done.failed, done.logs, same_command())


def _of_file(config: Path, options: list[str], photo: Photo, run: Path) -> Recipe:
    """Return the recipe of a file for a photo."""
    return load_recipe(
        config,
        [
            *options,
            f"concept.images={json.dumps(photo.file)}",
            f"concept.class={json.dumps(photo.class_name)}",
            f"output.dir={json.dumps(str(run))}",
        ],
    )


def _own_recipes(base: str, named: str, options: list[str]) -> Planner:
    """Return what writes the recipes that `tlora train PHOTO` has."""
    from tlora_cli.tools.preflight.fitting import room_of
    from tlora_cli.tools.preflight.from_photo import start_for
    from tlora_cli.tools.preflight.gpus import usable_card

    room = room_of(usable_card())

    def plan(photo: Photo, run: Path) -> Recipe:
        start, _ = start_for([photo.file], photo.class_name, base, "", named, room, photo.name)
        changes = [*options, f"output.dir={json.dumps(str(run))}"]
        return parse_recipe(start.text, f"the recipe of {photo.file}", changes)

    return plan
