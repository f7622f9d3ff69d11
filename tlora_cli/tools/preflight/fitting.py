"""Does a run fit the memory, part by part, and what to change if it doesn't."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.devices import ACCELERATOR
from tlora_cli.foundation.errors import Status
from tlora_cli.methods import METHODS
from tlora_cli.recipe.defaults import merged
from tlora_cli.recipe.models import Recipe
from tlora_cli.tools.preflight.findings import Finding, gigabytes, ok, problem, warning
from tlora_cli.tools.preflight.gpus import Card, free_memory
from tlora_cli.tools.preflight.memory import USABLE, MemoryPlan, plan_memory

PROGRAM = 800_000_000
"""Bytes that a run takes on a CPU beside its tensors: 0.59 to 0.78 GB were measured
(docs/start.md), of which Python and the libraries are 0.52."""


@dataclass(frozen=True)
class Room:
    """The memory there is.

    Attributes:
        size: bytes.
        name: of the card, or of the main memory.
        is_card: whether it is a GPU's.
        used: bytes of a card that other programs take.
    """

    size: int
    name: str
    is_card: bool = True
    used: int = 0

    def fits(self, plan: MemoryPlan) -> bool:
        """Say whether a run fits."""
        if self.is_card:
            return plan.fits(self.size) and plan.card <= self.size - self.used
        return plan.peak + PROGRAM <= self.size

    @property
    def told(self) -> str:
        """Its size and name, and what of it isn't for a run."""
        parts = [self.name]
        if self.used:
            parts.append(f"{gigabytes(self.used)} in use")
        if self.is_card:
            parts.append(f"{1 - USABLE:.0%} left to screens and other programs")
        return f"{gigabytes(self.size)} ({', '.join(parts)})"

    def need(self, plan: MemoryPlan) -> int:
        """Return the bytes that must be free."""
        return plan.card if self.is_card else plan.peak + PROGRAM

    def seen(self, plan: MemoryPlan) -> int:
        """Return the bytes that the system counts at the peak, pages of files included."""
        return plan.card if self.is_card else plan.seen + PROGRAM


def room_of(card: Card | None) -> Room | None:
    """Return the room of a card, or else of the main memory; None if that is not known."""
    if card is not None:
        return Room(card.total, card.name, used=card.used or 0)
    free = free_memory()
    return None if free is None else Room(free, "main memory", is_card=False)


def plan_for(recipe: Recipe, room: Room | None) -> MemoryPlan:
    """Return the plan of a run on a card, if that is the room, even if none is here.

    Raises:
        UserError: if the adapter doesn't fit the base.
    """
    on_card = changed(recipe, device=ACCELERATOR) if room is not None and room.is_card else None
    return plan_memory(on_card or recipe)


def changed(recipe: Recipe, **train: Any) -> Recipe | None:
    """Return the recipe with other settings of `train`; None if they don't go together."""
    data = recipe.model_dump(mode="json", by_alias=True)
    try:
        return Recipe.model_validate(merged(data, {"train": train}), by_alias=True, by_name=False)
    except ValueError:  # pydantic's
        return None


def thriftier(recipe: Recipe) -> Iterator[tuple[dict[str, Any], Recipe]]:
    """Yield changes that save memory, what costs least first; each holds those before it."""
    settings: dict[str, Any] = {}
    for step in _savings(recipe):
        tried = changed(recipe, **{**settings, **step})
        if tried is not None:
            settings |= step
            yield dict(settings), tried


def _savings(recipe: Recipe) -> Iterator[dict[str, Any]]:
    train = recipe.train
    if train.batch_size > 1:
        yield {"batch_size": 1}
    if not train.gradient_checkpointing:
        eager = {"execution": "eager"} if train.execution == "cuda_graph" else {}
        yield {"gradient_checkpointing": True, **eager}
    if train.quantization is None and train.device != "cpu":
        yield {"quantization": "int8"}
    if train.quantization != "nf4" and train.device != "cpu":
        yield {"quantization": "nf4"}
    if not train.offload and train.device != "cpu":
        yield {"offload": True}
    sides = FAMILIES[recipe.family].resolutions
    yield from ({"resolution": side} for side in sides if side < train.resolution)


def look_at_memory(recipe: Recipe, room: Room | None) -> Iterator[Finding]:
    """Yield the plan by phases, whether it fits, and what to change if it doesn't.

    Raises:
        UserError: if the adapter doesn't fit the base.
    """
    if METHODS[recipe.adapter.method].word:
        yield warning("memory", f"there is no plan for {recipe.adapter.method}; try --deep")
        return
    plan = plan_for(recipe, room)
    if recipe.learns_word:
        text = "a word is learned, so the text encoders stay; what they compute with isn't planned"
        if room is not None and _spare(plan, room) > _of_encoders(plan):
            yield ok("memory", f"{text}, and there is room for their weights once more")
        else:
            yield warning("memory", text, "try --deep, which measures a step")
    for phase in plan.phases:
        parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in phase.parts.items())
        pages = f", and {gigabytes(phase.pages)} of its files" if phase.pages else ""
        yield ok("memory", f"{phase.name}: {gigabytes(phase.total)} ({parts}){pages}")
    if room is None:
        yield warning("memory", "how much this machine has is not known", "give --card 24gb")
        return
    need = gigabytes(room.need(plan))
    there = room.told
    share = "the driver's share" if room.is_card else "the program itself"
    if room.fits(plan):
        more, seen = "", room.seen(plan)
        if seen > room.need(plan):
            more = f"; {gigabytes(seen)} are seen while the base is read, with its files' pages"
        yield ok("memory", f"{need} with {share}, of {there}{more}")
        return
    text = f"{need} with {share} don't fit {there}"
    yield problem("memory", text, _remedy(recipe, room), Status.NO_ROOM)


def _spare(plan: MemoryPlan, room: Room) -> int:
    """Return the bytes that stay free at the peak."""
    return room.size - room.used - room.need(plan)


def _of_encoders(plan: MemoryPlan) -> int:
    """Return the bytes of the text encoders' weights."""
    return max(phase.parts.get("text encoders", 0) for phase in plan.phases)


def _remedy(recipe: Recipe, room: Room) -> str:
    free = "close other programs on the card, or " if room.used > room.size // 50 else ""
    for settings, tried in thriftier(recipe):
        plan = plan_for(tried, room)
        if room.fits(plan):
            wanted = ", ".join(f"train.{key}: {_yaml(value)}" for key, value in settings.items())
            return f"{free}set {wanted}; it then takes {gigabytes(room.need(plan))}"
    return f"{free}train on a larger card; none of tlora's settings make it fit this one"


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
