"""The command `tlora train`."""

from __future__ import annotations

import functools
import json
import shlex
import signal
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from tlora_cli.cli.choices import check_name, completing, either
from tlora_cli.cli.collection import uncollected
from tlora_cli.cli.going_on import going_on
from tlora_cli.cli.once import filled
from tlora_cli.cli.opening import open_page
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.cli.reporter import reporter
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import writable
from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.foundation.stopping import Stopped
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.named import NAMED, PHOTO
from tlora_cli.recipe.reading import load_recipe

if TYPE_CHECKING:
    from tlora_cli.training.metrics import StepRecord


def train(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECIPE|PHOTO",
            help="A recipe file (YAML); or photographs, or a folder of them.",
        ),
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="What the photographs show, in a word, e.g. dog.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model for photographs: Hub id, folder, file, toy-sdxl.")
    ] = None,
    named: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help=f"Of photographs: {either(NAMED)}.",
            autocompletion=completing(NAMED),
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The recipe file, as it can also be named alone.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a value: --set train.steps=100"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Run folder; overrides output.dir.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder.")
    ] = False,
    open_: Annotated[
        bool, typer.Option("--open", help="Open the report in the browser at the end.")
    ] = False,
) -> None:
    """Train an adapter, from a recipe file or from photographs and their class.

    Photographs get a recipe that fits this machine, written into the current folder. With --resume
    and --output, the recipe in the run folder is used unless --config is given.
    """
    if images and _is_recipe(images[0]):
        config, images = _named_recipe(images, config), None
    if images:
        config = _from_photos(images, class_name, base, named, config, resume)
    elif given := [
        name
        for name, value in {"--class": class_name, "--base": base, "--recipe": named}.items()
        if value is not None
    ]:
        raise UserError(
            f"{given[0]} belongs to photographs, and none is named",
            do="tlora train dog.jpg --class dog, or --set KEY=VALUE for what a recipe file says",
        )
    if config is None:
        if not (resume and output):
            raise UserError(
                "no recipe was given",
                do="tlora train dog.jpg --class dog, or tlora train dog.yaml, or to continue a run "
                "--resume --output FOLDER",
            )
        config = output / "recipe.yaml"
        if not config.is_file():
            raise UserError(
                "the folder holds no run to resume", where=str(output), do="check --output"
            )
    overrides = list(set_ or [])
    if output is not None:
        overrides.append(f"output.dir={json.dumps(str(output))}")
    recipe = load_recipe(config, overrides, began=resume)

    hush_libraries()
    if images:
        reporter.inform(f"run: {recipe.output.dir}", err=True)
    steps = recipe.train.steps
    reporter.event("run", folder=recipe.output.dir, recipe=str(config), steps=steps)
    with going_on(lambda: _how(recipe, config, overrides)):
        with uncollected():
            from tlora_cli.training.loop import train as run

        watch = functools.partial(_tell_step, steps) if reporter.as_json else None
        outcome = run(recipe, resume=resume, console=reporter.console(), watch=watch)
    if outcome.adapter is None:
        stop = Stopped(outcome.signal or signal.SIGINT)
        stop.add_note(f"saved after step {outcome.step}; continue with:\n  {_resume(recipe)}")
        raise stop
    adapter = str(outcome.adapter)
    page = outcome.adapter.parent / "report.html"
    reporter.result(
        "trained",
        [f"adapter: {adapter}", f"report:  {page}"],
        adapter=adapter,
        report=str(page),
        folder=recipe.output.dir,
        step=outcome.step,
    )
    prompt = '"a photo of a V* in the snow"'
    reporter.advise(f"sample:  tlora sample --adapter {quote(adapter)} --prompt {prompt}")
    if open_:
        open_page(page)


def _tell_step(steps: int, record: StepRecord) -> None:
    reporter.event(
        "step",
        step=record.step,
        steps=steps,
        loss=record.loss,
        lr=record.lr,
        active_rank=record.active_rank,
        seconds=record.seconds,
        memory_gb=record.memory_gb,
    )


def _is_recipe(name: str) -> bool:
    return Path(name).suffix.lower() in (".yaml", ".yml")


def _named_recipe(names: list[str], config: Path | None) -> Path:
    """Return the recipe that is named in place of photographs."""
    if len(names) > 1 or config is not None:
        raise UserError(
            "one recipe is trained at a time, and two things are named",
            where=" ".join(names),
            do="name one recipe file, and nothing beside it; `tlora compare` trains several",
        )
    path: Path = filled("RECIPE", Path(names[0]))
    return path


def _resume(recipe: Recipe) -> str:
    return shlex.join([PRODUCT, "train", "--resume", "--output", recipe.output.dir])


def _how(recipe: Recipe, config: Path, overrides: list[str]) -> str:
    """Return how to go on with a run that was stopped at once."""
    if (writable(recipe.output.dir) / "recipe.yaml").exists():
        return f"what was saved is kept; continue with:\n  {_resume(recipe)}"
    settings = [word for one in overrides for word in ("--set", one)]
    again = shlex.join([PRODUCT, "train", "--config", str(config), *settings])
    return f"no step was made; again:\n  {again}"


def _from_photos(
    images: list[str],
    class_name: str | None,
    base: str | None,
    named: str | None,
    config: Path | None,
    resume: bool,
) -> Path:
    """Write the recipe for photographs, show why it is so, and return its file."""
    check_name("--recipe", named, NAMED)
    if config is not None or resume:
        raise UserError(
            f"photographs make a new run, and {'--config' if config else '--resume'} names another",
            do="leave one of the two out",
        )
    if not (class_name or "").strip():
        raise UserError("nothing says what the photographs show", do="add --class dog, say")
    assert class_name
    hush_libraries()
    from tlora_cli.cli.told_findings import tell_findings
    from tlora_cli.tools.preflight.fitting import room_of
    from tlora_cli.tools.preflight.from_photo import plan_run
    from tlora_cli.tools.preflight.gpus import usable_card

    room = room_of(usable_card())
    planned = plan_run(images, class_name.strip(), base or "", "", named or PHOTO, room)
    tell_findings(planned.reasons, err=True)
    reporter.inform(f"recipe: {planned.file}", err=True)
    return planned.file
