"""The protocol of trackers; which there are, and if they can be had."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_text
from tlora_cli.recipe.models import Recipe
from tlora_cli.training.run_folder import RunFolder


@dataclass(frozen=True)
class Sitting:
    """The facts that a tracker knows of the run when it starts.

    Attributes:
        run: its folder.
        project: in which wandb and trackio show it.
        id: of the run, the same over all sittings; empty if no tracker needs it.
        recipe: as plain data.
        step: finished steps; those after it are told now.
    """

    run: RunFolder
    project: str
    id: str
    recipe: Mapping[str, Any]
    step: int


@dataclass(frozen=True)
class Drawn:
    """A preview: its PNG file, and in words what it shows."""

    file: Path
    title: str


class Tracker(Protocol):
    """One tracker. All its methods are called on one thread, which is not the training's."""

    def start(self, sitting: Sitting) -> str | None:
        """Begin, or go on with, the run; return what the user should know, in a line."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of a finished step."""

    def pictures(self, step: int, drawn: Sequence[Drawn]) -> None:
        """Take the previews of a step."""

    def end(self) -> None:
        """Hand on what is left; nothing comes after."""


class _Place(NamedTuple):
    """The place of a tracker.

    Attributes:
        module: here, with a class `Own`.
        package: that it needs.
        by_id: whether it finds a run again by its id.
    """

    module: str
    package: str
    by_id: bool = True


TRACKERS = {
    "tensorboard": _Place("tlora_cli.training.trackers.on_tensorboard", "tensorboard", False),
    "wandb": _Place("tlora_cli.training.trackers.on_wandb", "wandb"),
    "trackio": _Place("tlora_cli.training.trackers.on_trackio", "trackio"),
}
"""The trackers by their names in `output.trackers`."""


def check_installed(names: Sequence[str]) -> None:
    """Raise a UserError if a tracker's package is missing, before anything else is done."""
    missing = [
        TRACKERS[name].package
        for name in names
        if importlib.util.find_spec(TRACKERS[name].package) is None
    ]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UserError(
            f"{' and '.join(missing)} {verb} not installed",
            where="output.trackers",
            do=f"pip install {' '.join(missing)}, or take it out of the list",
        )


def make_tracker(name: str) -> Tracker:
    """Return a tracker; its package is imported only when it starts."""
    tracker: Tracker = importlib.import_module(TRACKERS[name].module).Own()
    return tracker


_ID = re.compile(r"[0-9a-f]{12}")


def sitting_of(names: Sequence[str], run: RunFolder, recipe: Recipe, step: int) -> Sitting:
    """Return what trackers are told of a run that goes on after a step.

    Raises:
        UserError: if the run's id can't be written.
    """
    identity = run_id(run.trackers) if any(TRACKERS[name].by_id for name in names) else ""
    data = recipe.model_dump(mode="json", by_alias=True)
    return Sitting(run, recipe.output.project, identity, data, step)


def run_id(file: Path) -> str:
    """Return the run's id as the file has it; without one, write a new one.

    Raises:
        UserError: if it can't be written.
    """
    try:
        known = json.loads(file.read_text(encoding="utf-8"))["id"]
    except (OSError, ValueError, KeyError, TypeError):
        known = None  # none yet, or damaged: the run then shows as another one
    if isinstance(known, str) and _ID.fullmatch(known):
        return known
    new = secrets.token_hex(6)
    write_text(file, json.dumps({"id": new}) + "\n")
    return new
