"""The checks of `tlora validate`: all that could go wrong in a run, before it starts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.devices import has_accelerator
from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.hub import is_hub_id
from tlora_cli.methods import METHODS
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.reading import examine_recipe
from tlora_cli.tools.preflight.base_choices import look_at_choices
from tlora_cli.tools.preflight.base_files import look_at_base
from tlora_cli.tools.preflight.costs import Job, look_at_time
from tlora_cli.tools.preflight.downloads import is_here, look_at_download
from tlora_cli.tools.preflight.findings import (
    Finding,
    count,
    of_error,
    ok,
    problem,
    status_of,
    warning,
)
from tlora_cli.tools.preflight.fitting import Room, look_at_memory, room_of
from tlora_cli.tools.preflight.gpus import usable_card
from tlora_cli.tools.preflight.image_checks import look_at_pictures
from tlora_cli.tools.preflight.lesson_checks import (
    look_at_lengths,
    look_at_scenes,
    look_at_words,
)
from tlora_cli.tools.preflight.libraries import look_at_libraries
from tlora_cli.tools.preflight.machine_checks import (
    look_at_device,
    look_at_disk,
    look_at_encoders,
    look_at_environment,
    look_at_output,
    look_at_speed,
    previews_of,
)
from tlora_cli.tools.preflight.memory import attach_planned, planned_denoiser


@dataclass(frozen=True)
class Look:
    """The recipe and the machine that the checks look at.

    Attributes:
        recipe: the recipe; what is wrong in it has its default.
        card: bytes of the card to plan for in place of the one that is there; None for that.
    """

    recipe: Recipe
    card: int | None = None

    @cached_property
    def room(self) -> Room | None:
        """The memory that the run will have."""
        if self.card is not None:
            return Room(self.card, "the card of --card")
        return room_of(None if self.recipe.train.device == "cpu" else usable_card())

    @property
    def on_cpu(self) -> bool:
        """Whether the run will compute on a CPU."""
        here = self.recipe.train.device == "cpu" or not has_accelerator()
        return here and self.card is None

    @cached_property
    def adapter(self) -> Any:
        """The adapter as it will be, without values, on a denoiser without weights."""
        return attach_planned(self.recipe, planned_denoiser(self.recipe))


def _pictures(look: Look) -> Iterator[Finding]:
    yield from look_at_pictures(look.recipe)
    yield from look_at_words(look.recipe)
    yield from look_at_scenes(look.recipe)


def _base(look: Look) -> Iterator[Finding]:
    found = list(look_at_base(look.recipe))
    yield from found
    if not count(found, "problem"):
        yield from look_at_choices(look.recipe)
    else:
        yield from look_at_download(look.recipe.family, look.recipe.base.model)


def _device(look: Look) -> Iterator[Finding]:
    for finding in look_at_device(look.recipe):
        if look.card is not None and finding.level == "problem":
            yield replace(finding, level="warning", text=f"on this machine: {finding.text}")
        else:
            yield finding


def _lengths(look: Look) -> Iterator[Finding]:
    yield from look_at_lengths(look.recipe)


def _environment(look: Look) -> Iterator[Finding]:
    yield from look_at_environment()


def _encoders(look: Look) -> Iterator[Finding]:
    yield from look_at_encoders(look.recipe)


def _libraries(look: Look) -> Iterator[Finding]:
    found = list(look_at_libraries())
    yield from (finding for finding in found if finding.level != "ok")
    if all(finding.level == "ok" for finding in found):
        versions = ", ".join(f"{one.about} {one.text}" for one in found)
        yield ok("libraries", f"torch {torch.__version__}, {versions}")


def _output(look: Look) -> Iterator[Finding]:
    yield from look_at_output(look.recipe)


def _model(look: Look) -> Iterator[Finding]:
    """Look at what needs the shapes of the base: the standard ones where it is not here."""
    recipe, family = look.recipe, FAMILIES[look.recipe.family]
    if not is_here(recipe.family, recipe.base.model):
        known = (family.standard_base, *family.other_bases)
        if recipe.base.model not in known:
            text = f"{recipe.base.model} is not here: what follows is of {family.standard_base}"
            yield warning("memory", text, "look again once it is here, if it differs")
    if METHODS[look.recipe.adapter.method].word:
        yield from look_at_memory(look.recipe, look.room)
        return
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        adapter = look.adapter
    yield from (warning("adapter", str(one.message)) for one in told)
    trained = sum(parameter.numel() for parameter in adapter.parameters())
    yield ok("adapter", f"{trained:,} parameters in {len(adapter.layers)} layers are trained")
    yield from look_at_speed(adapter.denoiser, look.on_cpu)
    yield look_at_time([Job(look.recipe, previews_of(look.recipe))], look.card is not None)
    yield look_at_disk(look.recipe, adapter)
    yield from look_at_memory(look.recipe, look.room)


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        about: what it looks at.
        run: what it does.
        keys: what it reads of the recipe; it is left out if one of them is wrong.
        after: the check, if any, that must have found no problem.
        far: whether it is made, too, if that check has found the base only out of reach.
    """

    about: str
    run: Callable[[Look], Iterator[Finding]]
    keys: tuple[str, ...]
    after: Callable[[Look], Iterator[Finding]] | None = None
    far: bool = False


CHECKS = (
    Check("pictures", _pictures, ("concept", "family", "train.resolution", "train.crop")),
    Check("base", _base, ("family", "base", "train.objective", "sampling.scheduler")),
    Check("words", _lengths, ("family", "base", "concept", "train", "sampling"), after=_base),
    Check("libraries", _libraries, ()),
    Check("environment", _environment, ()),
    Check("device", _device, ("train",)),
    Check("encoders", _encoders, ("train.select", "base")),
    Check("output", _output, ("output.dir",)),
    Check(
        "memory",
        _model,
        ("family", "base", "adapter", "train", "sampling", "output.dir"),
        after=_base,
        far=True,
    ),
)


def validate_recipe(
    path: Path, overrides: Sequence[str] = (), card: int | None = None
) -> tuple[Recipe | None, list[Finding]]:
    """Look at a recipe and all that it names; nothing is trained, written or downloaded.

    Of a Hub repository the index is downloaded, which is a kilobyte.

    Args:
        path: the recipe's file.
        overrides: `train.steps=100` settings that win over the file.
        card: bytes of the card to plan for, in place of the one that is there.

    Returns:
        The recipe, None if it is wrong; and all findings.

    Raises:
        UserError: if the file can't be read, or is no recipe at all.
    """
    recipe, mistakes = examine_recipe(path, overrides)
    found = [problem("recipe", str(mistake)) for mistake in mistakes]
    if not mistakes:
        found.append(ok("recipe", f"{path} is right by itself"))
    if recipe is None:
        return None, found
    wrong = [".".join(map(str, mistake.path)) for mistake in mistakes]
    found += look_at_recipe(recipe, wrong, card)
    return (None if mistakes else recipe), found


def look_at_recipe(
    recipe: Recipe, wrong: Sequence[str] = (), card: int | None = None
) -> list[Finding]:
    """Return what is found of a recipe; see `validate_recipe`.

    Args:
        recipe: what is wrong in it has its default.
        wrong: dotted keys of that.
        card: as in `validate_recipe`.
    """
    found: list[Finding] = []
    look, failed, far = Look(recipe, card), set(), set()
    for check in CHECKS:
        stopped = check.after in failed and not (check.far and check.after in far)
        if stopped or any(_touch(key, w) for key in check.keys for w in wrong):
            failed.add(check.run)
            found.append(warning(check.about, "not looked at, as the above is wrong"))
            continue
        try:
            new = list(check.run(look))
        except UserError as error:
            new = [of_error("adapter" if check.run is _model else "recipe", error)]
        if count(new, "problem"):
            failed.add(check.run)
            out_of_reach = status_of(new) in (Status.MISSING, Status.LATER)
            if out_of_reach and is_hub_id(recipe.base.model):
                far.add(check.run)
        found += new
    return found


def _touch(key: str, other: str) -> bool:
    """Say whether one dotted key is the other, or lies within it."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")
