"""The plan of a run in words: its recipe, and what it takes of memory, time, disk and network."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.bundled import BUNDLES
from tlora_cli.foundation.errors import UserError
from tlora_cli.photos.finding import AUTO
from tlora_cli.photos.masks.files import MaskFiles
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.named import PAPER
from tlora_cli.studio.values import CARDS
from tlora_cli.tools.preflight.costs import Job, look_at_costs
from tlora_cli.tools.preflight.findings import Finding, count, gigabytes, of_error
from tlora_cli.tools.preflight.fitting import Room, room_of
from tlora_cli.tools.preflight.from_photo import on_base
from tlora_cli.tools.preflight.gpus import card_size, usable_card
from tlora_cli.tools.preflight.new_recipe import Start, Wishes, make_start
from tlora_cli.tools.preflight.validate import look_at_recipe
from tlora_cli.training.found_masks import question_of

Notify = Callable[[str], None]


def describe_machine(wishes: dict[str, Any], notify: Notify) -> dict[str, Any]:
    """Return what this machine has, and the bases that can be chosen, as plain data."""
    room = room_of(usable_card())
    return {
        "room": _room_in_words(room),
        "has_card": room is not None and room.is_card,
        "cards": CARDS,
        "bases": list(_bases()),
    }


def _room_in_words(room: Room | None) -> str:
    if room is None:
        return "this computer"
    if room.is_card:
        return f"{room.name}, {gigabytes(room.size)}"
    return f"this computer, without a CUDA card, {gigabytes(room.size)} of memory free"


def _bases() -> Iterator[dict[str, Any]]:
    """Yield the bases that are offered, with what they take and which words they know."""
    for bundle in BUNDLES.values():
        for base in bundle.bases:
            yield {
                "name": base,
                "about": f"built in; knows only drawings of {bundle.title}",
                "classes": list(bundle.class_words),
            }
    for family in FAMILIES.values():
        about = f"{family.title}, about {family.standard_gigabytes} GB to download"
        yield {"name": family.standard_base, "about": about, "classes": []}


def room_for(card: str) -> Room | None:
    """Return the memory to plan for: that of a card of a size, or this machine's."""
    if card:
        return Room(card_size(card), f"a card of {card}")
    return room_of(usable_card())


def start_of(wishes: dict[str, Any]) -> Start:
    """Return the recipe of a draft, and why it is so.

    Args:
        wishes: `photo`, `class_name`, `base`, `card`, `recipe`, `steps`, `judged`, `name`, `masks`.

    Raises:
        UserError: if the base doesn't fit, or a picture can't be read.
    """
    if not wishes["class_name"].strip():
        raise UserError("nothing says what the photo shows", do="say it in a word, such as dog")
    if not wishes["base"].strip():
        raise UserError("no base model is chosen", do="choose one")
    asked = Wishes(
        images=[wishes["photo"]],
        class_name=wishes["class_name"].strip(),
        base=wishes["base"].strip(),
        family="",
        name=wishes["name"],
        recipe=wishes["recipe"],
        masks=wishes["masks"],
        steps=wishes["steps"],
        select="auto" if wishes["judged"] else "last",
    )
    room = room_for(wishes["card"])
    asked, why = on_base(asked, room)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of small pictures: a finding tells it
        start = make_start(asked, room)
    return replace(start, reasons=[why, *start.reasons])


def plan(wishes: dict[str, Any], notify: Notify) -> dict[str, Any]:
    """Return what will happen: the recipe, its findings, and whether it can begin.

    Args:
        wishes: a draft's fields with `photo`, `files` (the mask that was found, its overlay),
            `own_mask` (the painted one) and `painted`.
        notify: told what is looked at.

    Raises:
        UserError: if there is no recipe for these wishes.
    """
    notify("making the recipe")
    start = start_of({**wishes, "masks": None if wishes["recipe"] == PAPER else AUTO})
    masks, keeps = mask_of(wishes, start.recipe)
    if masks != start.recipe.concept.masks:
        start = start_of({**wishes, "masks": masks})
    recipe, card = start.recipe, wishes["card"]
    notify("looking at photo, base, memory and disk")
    seen = look_at_recipe(recipe, card=card_size(card) if card else None)
    notify("measuring how fast this machine is")
    costs = list(_costs(recipe, bool(card)))
    findings = [*start.reasons, *costs, *seen]
    return {
        "text": start.text,
        "run": recipe.output.dir,
        "steps": recipe.train.steps,
        "keeps_mask": keeps,
        "elsewhere": bool(card),
        "ready": not count(findings, "problem") and not card,
        "words": _in_words(recipe, findings),
        "findings": [asdict(finding) for finding in findings],
    }


def mask_of(wishes: dict[str, Any], recipe: Recipe) -> tuple[str | None, bool]:
    """Return what the recipe says of masks, and whether the run takes over the mask that was found.

    `auto` where the run would find this very mask by itself; else its file, so that what is shown
    is what is learned.

    Args:
        wishes: of a draft.
        recipe: of these, with `masks: auto`.
    """
    if wishes["recipe"] == PAPER:
        return None, False
    if wishes["painted"]:
        return str(wishes["own_mask"]), False
    files = MaskFiles(*map(Path, wishes["files"]))
    if not files.mask.exists():
        return AUTO, False
    photo = Path(wishes["photo"])
    if files.read(photo, "photo", question_of(recipe, photo)) is not None:
        return AUTO, True
    return str(files.mask), False


def _costs(recipe: Recipe, elsewhere: bool) -> Iterator[Finding]:
    preview, train = recipe.train.preview, recipe.train
    pictures = 0
    if preview is not None:
        times = -(-train.steps // preview.every)
        pictures = times * len(preview.prompts) * preview.count
    try:
        found = list(look_at_costs([Job(recipe, pictures)], Path(recipe.output.dir), elsewhere))
    except UserError as error:
        found = [of_error("time", error)]
    yield from found


def _in_words(recipe: Recipe, findings: list[Finding]) -> list[list[str]]:
    """Return (what, in words) of what matters most to a person."""
    concept, adapter, train = recipe.concept, recipe.adapter, recipe.train
    told = [
        ["Learns", f'the {concept.class_name} of your photo, under the words "{concept.words}"'],
        ["How", _how(recipe)],
        ["With", f"{adapter.method}, rank {adapter.rank}, {train.steps:,} steps"],
    ]
    if train.select == "auto":
        told.append(["Judges", "each checkpoint by its pictures; the best one becomes the result"])
    for title, about, place in (
        ("Memory", "memory", -1),  # after the phases, the sum
        ("Time", "time", -1),
        ("Base model", "base", -1),
        ("Disk", "disk", 0),
    ):
        own = [one.text for one in findings if one.about == about and one.level == "ok"]
        if own:
            told.append([title, _least_time(own[place]) if about == "time" else own[place]])
    told.append(["Writes", f"the recipe {Path(recipe.output.dir).name}.yaml, and the folder "
                 f"{recipe.output.dir}"])  # fmt: skip
    return told


def _least_time(text: str) -> str:
    """Return of what `look_at_costs` says only how long it takes."""
    return f"at least {text.partition('at least ')[2].partition(', at the')[0]}"


def _how(recipe: Recipe) -> str:
    scenes = recipe.concept.scenes
    if scenes is None:
        return "on the photo as it is (the published recipe)"
    return f"the subject is cut out and put on {scenes.count} scenes that the base model draws"
