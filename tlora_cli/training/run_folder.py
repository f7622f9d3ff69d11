"""The folder of a run: what is where, and whose it is."""

from __future__ import annotations

import json
import platform
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.formats import read_origin
from tlora_cli.foundation.errors import FREE_SPACE, UserError
from tlora_cli.foundation.files import write_text
from tlora_cli.foundation.packages import PRODUCT, installed_version
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.reading import dump_recipe, load_recipe
from tlora_cli.training.checkpoint_scores import best, read_record

FREE_TO_CHANGE = (
    "train.steps",
    "train.checkpoint",
    "train.preview",
    "train.select",
    "train.device",
    "sampling",
    "output",
)
"""Keys that a resumed run may change, because the steps already done don't depend on them."""

PACKAGES = (PRODUCT, "torch", "diffusers", "transformers", "accelerate")
"""Packages of which a run records the versions."""


def checkpoints(folder: Path) -> list[Path]:
    """Return the finished checkpoints in `folder`, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    return sorted(found, key=step_of)


def step_of(folder: Path) -> int:
    """Return the step of a folder such as `checkpoint-000100`."""
    return int(folder.name.split("-")[1])


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe that took effect."""
        return self.path / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def about(self) -> Path:
        """The file of what the recipe doesn't say: parameters trained, device, versions."""
        return self.path / "about.json"

    @property
    def adapter(self) -> Path:
        """The result."""
        return self.path / "adapter.safetensors"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def previews(self) -> Path:
        """Folder of previews, one folder a step."""
        return self.path / "previews"

    @property
    def scores(self) -> Path:
        """The scores of the checkpoints, with `train.select: auto`."""
        return self.path / "scores.json"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard events."""
        return self.path / "tensorboard"

    @property
    def trackers(self) -> Path:
        """The id under which trackers know the run."""
        return self.path / "trackers.json"

    @property
    def report(self) -> Path:
        """The page that shows the run."""
        return self.path / "report.html"

    @property
    def training_pictures(self) -> Path:
        """Folder of small copies of the training pictures."""
        return self.path / "training_pictures"

    @property
    def masks(self) -> Path:
        """Folder of masks that were found by themselves, and overlays that show them."""
        return self.path / "masks"

    @property
    def class_pictures(self) -> Path:
        """Folder of generated class pictures for prior preservation."""
        return self.path / "class_pictures"

    @property
    def places(self) -> Path:
        """Folder of pictures of places, on which the subject is put."""
        return self.path / "places"

    @property
    def scenes(self) -> Path:
        """The sheet of scenes."""
        return self.path / "scenes.png"

    def holds_run(self) -> bool:
        """Whether an earlier run left something here."""
        own = (self.recipe, self.metrics, self.adapter, self.checkpoints, self.previews)
        return any(path.exists() for path in own)

    def finished(self, recipe: Recipe) -> bool:
        """Whether the adapter is there, and is the one that the recipe asks for."""
        found, steps = checkpoints(self.checkpoints), recipe.train.steps
        if not self.adapter.exists() or not found or step_of(found[-1]) < steps:
            return False
        try:
            held = read_origin(self.adapter)[1].train_steps
            record = read_record(self.scores) if recipe.train.select == "auto" else None
        except UserError:  # damaged: the adapter is written again, and the scores are told of
            return False
        if recipe.train.select == "last":
            return held is None or held >= steps
        if record is None or not record.reaches(steps):
            return False
        return best(record.scores()).step == held

    def check(self, recipe: Recipe, resume: bool) -> None:
        """Check that the folder may be used for the recipe; nothing is written.

        Raises:
            UserError: if it holds another run, a run whose recipe differs, or only a run's result.
        """
        if self.holds_run():
            if not resume:
                raise UserError(
                    "the output folder already holds a run",
                    where=str(self.path),
                    do="add --resume to continue it, or choose another output.dir",
                )
            if self.recipe.exists():
                self._check_same(load_recipe(self.recipe, began=True), recipe)
            if self.adapter.exists() and not checkpoints(self.checkpoints):
                raise UserError(
                    "the folder holds a finished adapter but no checkpoint to resume from",
                    where=str(self.path),
                    do="choose another output.dir",
                )

    def record(self, recipe: Recipe, parameters: int, device: str) -> None:
        """Write the recipe that takes effect, and how many parameters it trains on which device."""
        versions = {"python": platform.python_version()}
        versions |= {name: installed_version(name) for name in PACKAGES}
        about = {"parameters": parameters, "device": device, "versions": versions}
        write_text(self.about, json.dumps(about) + "\n")
        write_text(self.recipe, dump_recipe(recipe))

    def _check_same(self, before: Recipe, now: Recipe) -> None:
        free: tuple[str, ...] = FREE_TO_CHANGE
        if now.train.lr_schedule.name != "constant" or now.train.word_share is not None:
            free = tuple(key for key in free if key != "train.steps")
        changed = [
            f"{key}: was {short(old)}, is {short(new)}"
            for key, old, new in differences(
                before.model_dump(by_alias=True), now.model_dump(by_alias=True)
            )
            if not any(key == f or key.startswith(f"{f}.") for f in free)
        ]
        if changed:
            raise UserError(
                "the run in this folder was started with another recipe:\n    "
                + "\n    ".join(changed),
                where=str(self.recipe),
                do="restore these values to resume, or choose another output.dir",
            )


@contextmanager
def disk_explained(run: RunFolder) -> Iterator[None]:
    """Say how a run goes on for which the disk was too small."""
    try:
        yield
    except UserError as error:
        if error.do != FREE_SPACE or not run.recipe.exists():
            raise
        again = shlex.join([PRODUCT, "train", "--resume", "--output", str(run.path)])
        do = f"free disk space, then go on with: {again}"
        raise UserError(error.what, error.where, do, error.kind) from error


def differences(
    before: dict[str, Any], now: dict[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    """Return what differs in nested values: dotted key, old value, new value; None for none."""
    found: list[tuple[str, Any, Any]] = []
    for key in before.keys() | now.keys():
        old, new, name = before.get(key), now.get(key), f"{prefix}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{name}.")
        elif old != new:
            found.append((name, old, new))
    return sorted(found, key=lambda change: change[0])


def short(value: Any) -> str:
    """Return a value as JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
