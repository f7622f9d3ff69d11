"""Photographs and a word on the command line -> the recipe of a run, or what stands against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.bundled import bundle_of_base, bundle_of_picture, shipped
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_text
from tlora_cli.photos.finding import find_images, name_of
from tlora_cli.sampling.known_world import another_base, strangers, world_of
from tlora_cli.tools.preflight.costs import TRAINING_CALLS, products_per_second
from tlora_cli.tools.preflight.findings import Finding, ok
from tlora_cli.tools.preflight.fitting import Room
from tlora_cli.tools.preflight.new_recipe import Start, Wishes, choose_base, make_start

CALL = 6.76e12
"""Floating-point operations of SDXL's UNet for one picture of 1024 pixels, counted by torch on the
true configuration (`costs.operations_of_call`)."""


@dataclass(frozen=True)
class Planned:
    """A run from photographs.

    Attributes:
        file: the recipe that was written.
        start: the recipe, and why it is as it is.
        reasons: lines for the user, the choice of the base first.
    """

    file: Path
    start: Start
    reasons: list[Finding]


def plan_run(
    images: Sequence[str],
    class_name: str,
    base: str,
    family: str,
    named: str,
    room: Room | None,
) -> Planned:
    """Write a recipe for photographs, under a free name in the current folder.

    Args:
        images: photographs, or one folder.
        class_name: what they show, in a word.
        base: base model; empty for one that fits.
        family: of the base; empty if the base tells it.
        named: `photo` or `paper`.
        room: the memory it must fit; None if not known.

    Raises:
        UserError: if no base fits, the base doesn't know the class, or a picture can't be read.
    """
    name, number = name_of(images[0]), 1
    free = name
    while Path(f"{free}.yaml").exists():
        number += 1
        free = f"{name}-{number}"
    start, why = start_for(images, class_name, base, family, named, room, free)
    file = Path(f"{free}.yaml")
    write_text(file, start.text)
    return Planned(file, start, [why, *start.reasons])


def on_base(wishes: Wishes, room: Room | None) -> tuple[Wishes, Finding]:
    """Return the wishes with base and family filled in, and why it is this base.

    Raises:
        UserError: if no base fits, or the base doesn't know the class or what a picture shows.
    """
    card = room.name if room is not None and room.is_card else None
    base, bundle = wishes.base, bundle_of_picture(wishes.images[0])
    if not (base or wishes.family or card or bundle):
        raise _no_base()
    if bundle and not (base or wishes.family):
        base = next(iter(bundle.bases))
    model, kind, why = choose_base(base, wishes.family, card)
    check_class(model, wishes.class_name)
    if not bundle:
        check_world(model, wishes.images)
    return replace(wishes, base=model, family=kind), ok("base", f"{model}: {why}")


def start_for(
    images: Sequence[str],
    class_name: str,
    base: str,
    family: str,
    named: str,
    room: Room | None,
    name: str,
) -> tuple[Start, Finding]:
    """Return a recipe for photographs, and why it has its base.

    Args:
        images: as of `plan_run`, like the arguments up to `room`.
        class_name: what they show.
        base: base model; empty for one that fits.
        family: of the base.
        named: recipe.
        room: the memory.
        name: of the run.

    Raises:
        UserError: as `plan_run` does.
    """
    wishes = Wishes(list(images), class_name, base, family, name, recipe=named)
    wishes, why = on_base(wishes, room)
    return make_start(wishes, room), why


def check_class(base: str, class_name: str) -> None:
    """Raise a UserError if a base of a bundle doesn't know a class."""
    bundle = bundle_of_base(base)
    if bundle and class_name not in bundle.class_words:
        raise UserError(
            f"{base} draws {bundle.title} and doesn't know the word {class_name!r}",
            where="--class",
            do=f"use one of {', '.join(bundle.class_words)}; for photographs another --base",
        )


def check_world(base: str, images: Sequence[str]) -> None:
    """Raise a UserError if a base of a bundle can't draw what a picture shows."""
    bundle = world_of(base)
    if bundle is None:
        return
    paths = find_images(images[0] if len(images) == 1 else images, "PHOTO")
    for told in strangers(base, paths):
        raise UserError(
            told,
            where="--base",
            do=f"{another_base('--base')}; a drawing is, for example, {bundle.example_picture}",
        )


def _no_base() -> UserError:
    standard = next(iter(FAMILIES.values()))
    small = next(iter(shipped().bases))
    hours = hours_on_cpu(steps=800)
    return UserError(
        "no CUDA card is here, and nothing says which base model to train",
        where="--base",
        do=f"name one: --base {standard.standard_base} (about {standard.standard_gigabytes} GB to "
        f"download; 800 steps take about {hours:.0f} hours on this processor), a folder or file of "
        f"your own, or --base {small}, which takes minutes and knows only drawings of "
        f"{shipped().title}, not photographs",
    )


def hours_on_cpu(steps: int) -> float:
    """Return about how long SDXL takes here at 1024 pixels, by the speed of matrix products."""
    speed = products_per_second(torch.device("cpu"), "fp32")
    return steps * TRAINING_CALLS * CALL / speed / 3600
