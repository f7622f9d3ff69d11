"""The command `tlora init`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.cli.choices import check_known, completing, either
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.cli.reporter import reporter
from tlora_cli.cli.told_findings import tell_findings
from tlora_cli.families import FAMILIES
from tlora_cli.foundation.errors import UserError
from tlora_cli.tools.preflight.findings import ok


def init(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Pictures, or a folder of pictures.")
    ],
    class_name: Annotated[
        str | None, typer.Option("--class", help="What they show, in a word, e.g. dog.")
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(help=f"{either(FAMILIES)}.", autocompletion=completing(FAMILIES)),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model: Hub id, folder, file, or toy-sdxl.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the run; default: the picture's.")] = None,
    card: Annotated[
        str | None, typer.Option(help="Plan for a card of this size, e.g. 24gb, not for this one.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The recipe; default: NAME.yaml.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
) -> None:
    """Write a recipe for one or a few pictures that fits this machine, and say why it is so.

    On a terminal it asks for what no option says, unless with --json. Nothing is overwritten.
    """
    check_known("--family", family, FAMILIES)
    if output is not None:
        _refuse_existing(output)
    asks = sys.stdin.isatty() and not yes and not reporter.as_json
    if not asks and not (class_name or "").strip():
        raise UserError("nothing says what the pictures show", do="add --class dog, say")
    while asks and not class_name:  # before what takes seconds to load
        class_name = typer.prompt("What is it, in a word (dog, teapot)").strip()
    hush_libraries()
    from tlora_cli.foundation.files import write_text
    from tlora_cli.photos.finding import name_of
    from tlora_cli.tools.preflight.fitting import Room, room_of
    from tlora_cli.tools.preflight.gpus import card_size, usable_card
    from tlora_cli.tools.preflight.new_recipe import Wishes, choose_base, make_start

    room = Room(card_size(card), "the card of --card") if card else room_of(usable_card())
    there = room.name if room is not None and room.is_card else None
    if asks and not base and not family:
        usual = next(iter(FAMILIES)) if there else "toy-sdxl"
        names = ", ".join(FAMILIES)
        said = typer.prompt(f"Base model ({names}, toy-sdxl, a Hub id, a folder)", default=usual)
        base, family = (None, said) if said in FAMILIES else (said, None)
    model, kind, why = choose_base(base or "", family or "", there)
    if name is None:
        name = name_of(images[0])
        if asks:
            name = typer.prompt("Name of the run", default=name)
    target = output or Path(f"{name}.yaml")
    _refuse_existing(target)
    assert class_name
    start = make_start(Wishes(images, class_name, model, kind, name), room)
    write_text(target, start.text)
    tell_findings([ok("base", f"{model}: {why}"), *start.reasons])
    file = shlex.quote(str(target))
    planned = f" --card {shlex.quote(card)}" if card else ""
    train = f"tlora train --config {file}"
    reporter.result(
        "initialized", f"wrote {target}", recipe=str(target), base=model, family=kind, next=train
    )
    reporter.advise(f"next: tlora validate {file}{planned}", f"      {train}")


def _refuse_existing(file: Path) -> None:
    if file.exists():
        raise UserError(
            "there is a file of that name already", str(file), "choose another --output or --name"
        )
