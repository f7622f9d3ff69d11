"""The adapters of a sheet: files that are named, and the checkpoints of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlora_cli.formats import AdapterInfo, open_adapter
from tlora_cli.formats.opening import locate
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import expanded
from tlora_cli.methods import PLAIN
from tlora_cli.training.checkpoint_files import ADAPTER_FILE
from tlora_cli.training.run_folder import RunFolder, checkpoints, step_of

MOST_STEPS = 6
"""Checkpoints that a sheet shows where none are named."""


@dataclass(frozen=True)
class Source:
    """An adapter, or a run with its checkpoints.

    Attributes:
        name: given by the user; empty if there is none.
        path: as it was given.
        result: the adapter file that it means.
        steps: training step -> adapter file; empty for a file alone.
        info: of the result.
    """

    name: str
    path: Path
    result: Path
    steps: dict[int, Path]
    info: AdapterInfo

    def file(self, step: int | None) -> Path:
        """Return the file of a step; None stands for the result.

        Raises:
            UserError: if there is no checkpoint of the step.
        """
        if step is None:
            return self.result
        if step not in self.steps:
            raise UserError(
                f"there is no checkpoint of step {step}",
                where=str(self.path),
                do=f"its steps are {', '.join(map(str, self.steps))}"
                if self.steps
                else "the axis step needs the folder of a run",
            )
        return self.steps[step]


def find_source(given: str) -> Source:
    """Return what PATH or NAME=PATH names: an adapter file, its folder, or the folder of a run.

    Raises:
        UserError: if there is no adapter.
    """
    name, equals, path = given.partition("=")
    if not equals or expanded(given).exists():
        name, path = "", given
    place = expanded(path)
    run = RunFolder(place)
    kept = {step_of(one): one / ADAPTER_FILE for one in checkpoints(run.checkpoints)}
    # A run that isn't finished has checkpoints alone.
    result = locate(place) if run.adapter.is_file() or not kept else kept[max(kept)]
    info = open_adapter(result).origin[1]
    is_run = place.is_dir() and (bool(kept) or run.recipe.is_file())
    if is_run and info.train_steps is not None:
        kept.setdefault(info.train_steps, result)
    return Source(name, place, result, dict(sorted(kept.items())) if is_run else {}, info)


def shown_steps(sources: Sequence[Source]) -> tuple[int, ...]:
    """Return the steps that all runs have; of many, `MOST_STEPS` that lie evenly.

    Raises:
        UserError: if there are none.
    """
    for one in sources:
        if not one.steps:
            raise UserError(
                "the axis step goes over the checkpoints of a run, and this is one adapter",
                where=str(one.path),
                do="name the folder of the run, such as runs/dog, or leave step out of --over",
            )
    common = sorted(set.intersection(*(set(one.steps) for one in sources)))
    if not common:
        raise UserError(
            "these runs have no step in common",
            where="--over step",
            do="name runs with checkpoints of the same steps",
        )
    if len(common) <= MOST_STEPS:
        return tuple(common)
    last = len(common) - 1
    return tuple(common[round(n * last / (MOST_STEPS - 1))] for n in range(MOST_STEPS))


def labels(sources: Sequence[Source]) -> list[str]:
    """Return what adapters are called on the sheet: by their methods, with paths where needed."""
    called = [one.name or (one.info.method or PLAIN) for one in sources]
    return [
        label if called.count(label) == 1 else f"{label}: {one.path.name}"
        for label, one in zip(called, sources, strict=True)
    ]
