"""The protocol of a tracker; which there are, and whether their packages are installed."""

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

from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.files import write_text
from tlora_cli.training.run_folder import RunFolder


@dataclass(frozen=True)
class TrackedRun:
    """The facts that a tracker knows of the run when it starts.

    Attributes:
        folder: of the run.
        project: in which wandb and trackio show it.
        id: of the run, the same each time it is resumed; empty if no tracker needs it.
        recipe: as plain data.
        step: finished steps; those after it are logged now.
    """

    folder: RunFolder
    project: str
    id: str
    recipe: Mapping[str, Any]
    step: int


@dataclass(frozen=True)
class LoggedImage:
    """A preview: its PNG file, and a caption of what it shows."""

    file: Path
    caption: str


class Tracker(Protocol):
    """One tracker. All its methods are called on one thread, which is not the training's."""

    def start(self, run: TrackedRun) -> str | None:
        """Begin, or go on with, the run; return what the user should know, in a line."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of a finished step."""

    def log_images(self, step: int, images: Sequence[LoggedImage]) -> None:
        """Take the previews of a step."""

    def finish(self) -> None:
        """Hand on what is left; nothing comes after."""


class TrackerSpec(NamedTuple):
    """The place of a tracker.

    Attributes:
        target: its class, as "module:Class".
        package: that it needs.
        by_id: whether it finds a run again by its id.
    """

    target: str
    package: str
    by_id: bool = True


TRACKERS = {
    "tensorboard": TrackerSpec(
        "tlora_cli.training.trackers.on_tensorboard:TensorBoardTracker", "tensorboard", False
    ),
    "wandb": TrackerSpec("tlora_cli.training.trackers.on_wandb:WandbTracker", "wandb"),
    "trackio": TrackerSpec("tlora_cli.training.trackers.on_trackio:TrackioTracker", "trackio"),
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
            kind=Status.MISSING,
        )


def make_tracker(name: str) -> Tracker:
    """Return a tracker; its package is imported only when it starts."""
    module, _, attribute = TRACKERS[name].target.partition(":")
    tracker: Tracker = getattr(importlib.import_module(module), attribute)()
    return tracker


_ID = re.compile(r"[0-9a-f]{12}")


def tracked_run(
    names: Sequence[str], folder: RunFolder, project: str, recipe: Mapping[str, Any], step: int
) -> TrackedRun:
    """Return what trackers know of a run that goes on after a step.

    Raises:
        UserError: if the run's id can't be written.
    """
    identity = run_id(folder.trackers) if any(TRACKERS[name].by_id for name in names) else ""
    return TrackedRun(folder, project, identity, recipe, step)


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
