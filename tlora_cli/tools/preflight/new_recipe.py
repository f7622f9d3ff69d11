"""Pictures and a word -> a recipe that fits this machine, with the reasons of its choices."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, family_of_base
from tlora_cli.foundation.bundled import bundle_of_base, shipped
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import expanded
from tlora_cli.foundation.pictures import picture_size
from tlora_cli.photos.finding import find_images
from tlora_cli.photos.framing import CENTER, WHOLE, Frame, frame_for
from tlora_cli.photos.training_images import load_training_image
from tlora_cli.recipe.defaults import merged
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.named import PAPER, PHOTO
from tlora_cli.recipe.reading import parse_recipe
from tlora_cli.sampling.known_world import another_base, strangers
from tlora_cli.tools.preflight.downloads import look_at_download
from tlora_cli.tools.preflight.findings import Finding, gigabytes, ok, warning
from tlora_cli.tools.preflight.fitting import Room, plan_for, thriftier
from tlora_cli.tools.preflight.image_checks import Traits, advice, traits_of, used
from tlora_cli.tools.preflight.memory import MemoryPlan, planned_denoiser
from tlora_cli.tools.preflight.recipe_text import recipe_text, scalar
from tlora_cli.training.run_folder import RunFolder
from tlora_cli.training.shape import frame_of

PROMPTS = ("a photo of a V* in the snow", "a V* as an oil painting")
"""Prompts of previews: another place, another style. What only shows up there has been learned."""
PARTS = 4
"""Times that a run saves."""
LOOKS = 8
"""Times that it draws previews, beside those before its first step."""


@dataclass(frozen=True)
class Wishes:
    """The user's wishes.

    Attributes:
        images: pictures, or one folder, as in a recipe.
        class_name: what the pictures show, in a word.
        base: of the recipe; empty for the standard one.
        family: of the base; empty if the base tells it.
        name: of the run.
        rank: of the adapter; None for the usual one.
        recipe: the named recipe that the settings come from.
        masks: file of the subject's mask, or `auto`; None for what the recipe says.
        steps: of the training; None for the usual number.
        select: which checkpoint becomes the result, `last` or `auto`.
    """

    images: list[str]
    class_name: str
    base: str
    family: str
    name: str
    rank: int | None = None
    recipe: str = PHOTO
    masks: str | None = None
    steps: int | None = None
    select: str = "last"


@dataclass(frozen=True)
class Start:
    """A recipe to start from.

    Attributes:
        text: its file.
        recipe: what the file says.
        reasons: why it is as it is.
    """

    text: str
    recipe: Recipe
    reasons: list[Finding]


def choose_base(base: str, family: str, card: str | None) -> tuple[str, str, str]:
    """Return base, family and the reason, from what was said of them.

    Args:
        base: as it was given; empty for none.
        family: likewise.
        card: name of the card that there is or will be; None without one.

    Raises:
        UserError: if the family can't be told, or isn't the base's.
    """
    if bundle := bundle_of_base(base):
        own = bundle.bases[base]
        if family not in ("", own):
            raise UserError(f"{base} is {own}, not {family}", do="drop --family")
        return base, own, "as asked"
    if base:
        known = next((n for n, kind in FAMILIES.items() if kind.standard_base == base), "")
        return base, family or known or family_of_base(Base(base)), "as asked"
    if family:
        return FAMILIES[family].standard_base, family, f"the base of {family}"
    if card is not None:
        usual = next(iter(FAMILIES))
        base = FAMILIES[usual].standard_base
        return base, usual, f"for photographs, on {card}"
    small, own = next(iter(shipped().bases.items()))
    names = " or ".join(FAMILIES)
    return small, own, f"no card is here; for a card elsewhere, add --family {names}"


def make_start(wishes: Wishes, room: Room | None) -> Start:
    """Return a recipe that fits, and why it is as it is.

    Args:
        wishes: what the user said.
        room: the memory it must fit; None if not known.

    Raises:
        UserError: if a picture can't be read.
    """
    sides, bundle = FAMILIES[wishes.family].resolutions, bundle_of_base(wishes.base)
    paths = find_images(wishes.images[0] if len(wishes.images) == 1 else wishes.images, "IMAGE")
    crop = _crop(wishes, paths)
    traits = _look(paths, _frame(wishes, crop, sides[-1]))
    plain = _recipe(wishes, {})
    wishes = replace(wishes, rank=_rank(plain))
    side = _resolution(traits, plain.train.resolution, sides)
    own: dict[str, Any] = {} if crop == CENTER else {"crop": crop}
    own |= {} if side == plain.train.resolution else {"resolution": side}
    recipe, saved, why = _fitting(_recipe(wishes, own), wishes, own, room)
    frame = frame_of(recipe)
    reasons = [
        *(ok("pictures", f"{name}: {used(one, frame)}") for name, one in traits.items()),
        *(a for name, one in traits.items() for a in advice(name, one, frame)),
        *(warning("base", told, another_base("--base")) for told in strangers(wishes.base, paths)),
        ok("resolution", _resolution_reason(recipe, traits)),
        *_class_reason(wishes),
        ok(
            "settings",
            f"{recipe.adapter.method}, rank {recipe.adapter.rank}, {recipe.train.steps} steps: "
            + (f"found on {bundle.title}" if bundle else "as published"),
        ),
        *_recipe_reason(recipe),
        *look_at_download(recipe.family, recipe.base.model),
        why,
    ]
    text = recipe_text(recipe, saved)
    made = parse_recipe(text, "the new recipe")
    assert made == recipe, "the file says what was planned"
    return Start(text, recipe, reasons)


# --- choices ----------------------------------------------------------------------------------


def _frame(wishes: Wishes, crop: str, side: int) -> Frame:
    return frame_for(crop, side, FAMILIES[wishes.family].pixel_multiple)


def _crop(wishes: Wishes, paths: Sequence[Path]) -> str:
    """Return what of the photos to train on: the whole, as far as a base knows such shapes.

    A phone's photo is no square, and its subject may be anywhere. What was published, and what a
    bundle's bases know, are squares.
    """
    if wishes.recipe == PAPER or bundle_of_base(wishes.base):
        return CENTER
    side = FAMILIES[wishes.family].resolutions[0]
    whole = _frame(wishes, WHOLE, side)
    squares = all(whole.size(picture_size(path, "IMAGE")) == (side, side) for path in paths)
    return CENTER if squares else WHOLE


def _look(paths: Sequence[Path], frame: Frame) -> dict[str, Traits]:
    found = {}
    for path in paths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of small ones: `advice` tells it
            found[str(path)] = traits_of(load_training_image(path, None, frame))
    return found


def _rank(plain: Recipe) -> int | None:
    """Return a rank that fits a base narrower than the usual ones, else None."""
    if bundle_of_base(plain.base.model) or not expanded(plain.base.model).is_dir():
        return None
    layers = FAMILIES[plain.family].target_layers(planned_denoiser(plain)).values()
    width = min(min(layer.in_features, layer.out_features) for layer in layers)
    if plain.adapter.rank <= width:
        return None
    return int(2 ** (width.bit_length() - 1))  # the power of two below


def _resolution(traits: Mapping[str, Traits], usual: int, known: Sequence[int]) -> int:
    """Return the side to train at: the base's own, or less where a picture has less."""
    smallest = min(one.side for one in traits.values())
    sides = [side for side in known if side <= usual]
    fitting = [side for side in sides if side <= smallest]
    return fitting[0] if fitting else min(sides, default=usual)


def _resolution_reason(recipe: Recipe, traits: Mapping[str, Traits]) -> str:
    side, smallest = recipe.train.resolution, min(one.side for one in traits.values())
    if bundle_of_base(recipe.base.model):
        return f"{side}, all that {recipe.base.model} draws"
    largest = FAMILIES[recipe.family].resolutions[0]
    has = f"{smallest}" if recipe.train.crop == CENTER else f"as many pixels as {smallest} squared"
    if side == largest:
        return f"{side}, the base's own; the picture has {has}"
    why = "more would not fit" if smallest > side else f"the picture has only {has}"
    return f"{side} of the base's {largest}: {why}"


def _recipe_reason(recipe: Recipe) -> Iterator[Finding]:
    if recipe.recipe != PHOTO:
        return
    scenes = recipe.concept.scenes
    assert scenes is not None
    chosen = f"recipe: {PHOTO}: {scenes.count} scenes of the subject, which is found and cut out"
    if bundle_of_base(recipe.base.model) is None:
        chosen += (
            f"; chosen on {shipped().title}, not yet measured on {recipe.family}; recipe: {PAPER} "
            "is the published one"
        )
    yield ok("recipe", chosen)


def _class_reason(wishes: Wishes) -> Iterator[Finding]:
    bundle = bundle_of_base(wishes.base)
    if bundle and wishes.class_name not in bundle.class_words:
        yield warning(
            "class",
            f"{wishes.base} doesn't know the word {wishes.class_name}",
            f"use one of {', '.join(bundle.class_words)}; for photographs another base",
        )


def _recipe(wishes: Wishes, train: dict[str, Any]) -> Recipe:
    draft: dict[str, Any] = {
        "recipe": wishes.recipe,
        "family": wishes.family,
        "base": wishes.base,
        "concept": {
            "images": wishes.images[0] if len(wishes.images) == 1 else wishes.images,
            "class": wishes.class_name,
            "placeholder": "sks",
            **({} if wishes.masks is None else {"masks": wishes.masks}),
        },
        "adapter": {} if wishes.rank is None else {"rank": wishes.rank},
        "train": {
            **train,
            **({} if wishes.steps is None else {"steps": wishes.steps}),
            "select": wishes.select,
        },
        "output": {"dir": free_run_folder(wishes.name)},
    }
    steps = Recipe.model_validate(draft).train.steps
    every = max(1, steps // PARTS)
    bundle = bundle_of_base(wishes.base)
    prompts = list(bundle.preview_prompts if bundle else PROMPTS)
    cycle = {
        "checkpoint": {"every": every, "keep": 2},
        "preview": {"every": max(1, steps // LOOKS), "prompts": prompts},
    }
    return Recipe.model_validate(merged({"train": cycle}, draft))


def free_run_folder(name: str) -> str:
    """Return runs/name, or with a number if a run is there already."""
    folder, number = f"runs/{name}", 1
    while RunFolder(Path(folder)).holds_run():
        number += 1
        folder = f"runs/{name}-{number}"
    return folder


def _fitting(
    recipe: Recipe, wishes: Wishes, own: dict[str, Any], room: Room | None
) -> tuple[Recipe, dict[str, Any], Finding]:
    """Return a recipe that fits the room, what was set for it, and the reason."""
    plan = plan_for(recipe, room)
    elsewhere = (room is None or not room.is_card) and not bundle_of_base(recipe.base.model)
    if elsewhere:
        text = f"it takes a card with {gigabytes(plan.card)} free, and there is none here"
        return recipe, {}, warning("memory", text, "plan for one: add --card 24gb, say")
    if room is None or room.fits(plan):
        return recipe, {}, ok("memory", _fits(plan, room, "nothing need be saved"))
    for preset, settings in FAMILIES[recipe.family].memory_presets.items():
        if not settings:  # as it is
            continue
        tried = _recipe(wishes, {**own, "memory": preset})
        if room.fits(plan := plan_for(tried, room)):
            return tried, {"memory": preset}, ok("memory", _fits(plan, room, f"memory: {preset}"))
    for settings, _ in thriftier(recipe):
        tried = _recipe(wishes, {**own, **settings})
        if room.fits(plan := plan_for(tried, room)):
            told = ", ".join(f"{key}: {scalar(value)}" for key, value in settings.items())
            return tried, settings, ok("memory", _fits(plan, room, told))
    return (
        recipe,
        {},
        warning(
            "memory",
            f"it takes {gigabytes(room.need(plan))}, of {gigabytes(room.size)}, whatever is saved",
            "train on a larger card, or take another base",
        ),
    )


def _fits(plan: MemoryPlan, room: Room | None, how: str) -> str:
    if room is None:
        return f"{gigabytes(plan.peak)}"
    return f"{gigabytes(room.need(plan))} of {room.told}: {how}"
