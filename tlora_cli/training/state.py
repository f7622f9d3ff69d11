"""All that resumes, and the checkpoints that hold it (`checkpoint_files.py` has their files).

That is what is trained and its average, the method's running statistics, the optimizer, the
gradient scaler and the step. Random numbers are functions of (seed, step), so they need no saving.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tlora_cli.formats.checkpoint_file import START_FILE
from tlora_cli.foundation.devices import on_host
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import (
    folder_atomically,
    remove_folder,
    remove_leftovers,
    require_space,
)
from tlora_cli.injection.adapter import Adapter
from tlora_cli.injection.saved_tensors import put, running_tensors, trained_tensors
from tlora_cli.recipe.train_sections import TrainConfig
from tlora_cli.training.average import Average
from tlora_cli.training.checkpoint_files import (
    STATE_FILE,
    WHOLE_STATE,
    read_checkpoint,
    restore_start,
    restore_trained,
    write_adapter,
    write_start,
)
from tlora_cli.training.disk_space import DiskSpace
from tlora_cli.training.run_folder import checkpoints, step_of

STATE_VERSION = 2


@dataclass
class TrainingState:
    """Everything that a step changes."""

    adapter: Adapter
    optimizer: Any
    scaler: Any = None
    """Gradient scaler of fp16 runs, else None."""
    inputs: str = ""
    """Digest of the training pictures and masks."""
    average: Average | None = None
    """Average of the weights, where the run gives it instead of the last ones."""
    step: int = 0
    """Finished optimizer steps."""
    seconds: float = 0.0
    """Time spent in finished steps, over all starts of the run."""

    def as_result(self) -> AbstractContextManager[None]:
        """Inside, the adapter is what the run gives; nothing may be trained there."""
        return self.average.shown() if self.average else nullcontext()

    def to_dict(self) -> dict[str, Any]:
        """Return all that an adapter file does not hold.

        Tensors and plain values only, so that loading runs no code.
        """
        state: dict[str, Any] = {
            "version": STATE_VERSION,
            "running": running_tensors(self.adapter),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "inputs": self.inputs,
            "base_version": self.adapter.info.base_version,
            "step": self.step,
            "seconds": self.seconds,
        }
        if self.average:  # the file holds the average
            state["weights"] = trained_tensors(self.adapter)
        return dict(on_host(state))

    def load_dict(self, saved: dict[str, Any], folder: Path) -> None:
        """Take everything back.

        Args:
            saved: a checkpoint, as `read_checkpoint` returns it.
            folder: of the run's checkpoints.

        Raises:
            ValueError: if it belongs to another version or adapter.
            UserError: if the pictures have changed since, or the base that comes with the program,
                or the run's start can't be had.
        """
        if saved.get("version") not in (WHOLE_STATE, STATE_VERSION):
            version = saved.get("version", "unknown")
            raise ValueError(f"state version {version!r} is not {STATE_VERSION}")
        if saved["inputs"] != self.inputs:
            raise UserError(
                "the training pictures, masks or captions have changed since the run was started",
                where="concept.images",
                do="put the old files back to resume, or choose another output.dir",
            )
        info = self.adapter.info
        if saved.get("base_version") != info.base_version:
            raise UserError(
                f"the run was started on an earlier version of {info.base_model}, whose weights "
                "were other ones",
                where="base",
                do="start it anew with another output.dir, or go on with the version of tlora that "
                "began it",
            )
        self.load_weights(saved, folder)
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scaler and saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        self.step, self.seconds = saved["step"], saved["seconds"]

    def load_weights(self, saved: dict[str, Any], folder: Path) -> None:
        """Take back only the adapter and the average of its weights; see `load_dict`."""
        adapter, average = self.adapter, self.average
        if saved["version"] == WHOLE_STATE:
            adapter.load_state_dict(saved["adapter"])
            if average:
                average.load_state_dict(saved["average"])
            return
        if ("weights" in saved) != (average is not None):
            raise ValueError("one has an average of the weights, the other has none")
        restore_start(adapter, folder, saved["start"])
        with self.as_result():
            restore_trained(adapter, saved)
        if average:
            put(trained_tensors(adapter), saved["weights"])
        put(running_tensors(adapter), saved["running"])


def save_checkpoint(folder: Path, state: TrainingState, space: DiskSpace) -> Path:
    """Write a checkpoint for the present step.

    Raises:
        UserError: if the disk is full; the checkpoints before stay.
    """
    target = folder / f"checkpoint-{state.step:06d}"
    if target not in checkpoints(folder):
        started = (folder / START_FILE).exists()
        needed = space.checkpoint + (0 if started else space.start)
        require_space(folder, needed, "a checkpoint")
        start = write_start(state.adapter, folder)
        with folder_atomically(target) as unfinished:
            with state.as_result():
                trained = write_adapter(state.adapter, unfinished, start)
            # Through a file of our own: torch's writer hides why a disk refuses.
            with (unfinished / STATE_FILE).open("wb") as file:
                torch.save({**state.to_dict(), "trained": trained, "start": start}, file)
    return target


def remove_old(folder: Path, keep: int, spared: int) -> None:
    """Remove all checkpoints but the last `keep` and that of the step `spared`."""
    for old in checkpoints(folder)[:-keep]:
        if step_of(old) != spared:
            remove_folder(old)


def load_weights(folder: Path, step: int, state: TrainingState) -> None:
    """Load the adapter of a step's checkpoint, and its average.

    Raises:
        UserError: if it is not there or can't be loaded.
    """
    path = folder / f"checkpoint-{step:06d}"
    try:
        state.load_weights(read_checkpoint(path), folder)
    except UserError:
        raise
    except Exception as error:  # any kind of damage
        raise UserError(
            f"the best checkpoint can't be loaded ({type(error).__name__})",
            where=str(path),
            do="put it back, or take the last checkpoint: add --set train.select=last",
        ) from error


def load_latest(folder: Path, state: TrainingState) -> Path | None:
    """Load the last checkpoint that is whole into `state`; None if there is none.

    A damaged checkpoint (a failing disk, a meddling hand) is passed over with a warning and set
    aside under another name, so that it neither counts nor stands in the way of a new one.

    Raises:
        UserError: if there are checkpoints but none can be loaded.
    """
    remove_leftovers(folder)
    found, damaged = checkpoints(folder), []
    for path in reversed(found):
        try:
            state.load_dict(read_checkpoint(path), folder)
        except UserError:
            raise
        except Exception as error:  # any kind of damage: the one before may be whole
            warnings.warn(
                f"{path.name} can't be loaded ({type(error).__name__}); trying the one before",
                stacklevel=2,
            )
            damaged.append(path)
            continue
        for wreck in damaged:
            wreck.replace(_free_name(wreck.with_name(f"damaged-{wreck.name}")))
        return path
    if found:
        raise UserError(
            "none of the checkpoints can be loaded",
            where=str(folder),
            do="start again with another output.dir; their adapter.safetensors may still be good",
        )
    return None


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run, and the result that is written from one of them.

    Attributes:
        folder: where they are.
        state: of the run.
        dtype: of the tensors in the result.
        keep: how many of the last ones stay.
        space: that they take.
    """

    folder: Path
    state: TrainingState
    dtype: torch.dtype
    keep: int
    space: DiskSpace

    def load_latest(self) -> bool:
        """Go on from the last checkpoint; return whether there is one. See `load_latest`."""
        return load_latest(self.folder, self.state) is not None

    def require_space(self, train: TrainConfig) -> None:
        """Ask for the room of all checkpoints at once, before hours are spent.

        Raises:
            UserError: if the disk has too little.
        """
        present, started = len(checkpoints(self.folder)), (self.folder / START_FILE).exists()
        needed = self.space.of_run(train, self.state.step, present, started)
        require_space(self.folder.parent, needed, "the run's checkpoints")

    def save(self) -> None:
        """Write a checkpoint of the present step.

        Raises:
            UserError: if the weights are not finite, or the disk is full.
        """
        adapter, step = self.state.adapter, self.state.step
        finite = [tensor.isfinite().all() for tensor in adapter.parameters()]
        if not all(torch.stack(finite).tolist()):  # read together
            raise self.diverged(f"the adapter's weights after step {step} overflowed")
        adapter.info = replace(adapter.info, train_steps=step)
        save_checkpoint(self.folder, self.state, self.space)

    def remove_old(self, best: int) -> None:
        """Remove all but the last ones, and that of step `best`."""
        remove_old(self.folder, self.keep, spared=best)

    def write_result(self, step: int, file: Path) -> None:
        """Write the adapter of a step as the run's result."""
        adapter = self.state.adapter
        if step != self.state.step:
            load_weights(self.folder, step, self.state)
        adapter.info = replace(adapter.info, train_steps=step)
        with self.state.as_result():
            adapter.save(file, self._number_format())

    def _number_format(self) -> torch.dtype:
        """Return the recipe's number format, or float32 where that can't hold a weight."""
        most = torch.finfo(self.dtype).max
        parameters = self.state.adapter.parameters()
        fits = [(tensor.abs() <= most).all() for tensor in parameters]
        if all(torch.stack(fits).tolist()):  # read together
            return self.dtype
        name = str(self.dtype).removeprefix("torch.")
        warnings.warn(
            f"a weight is larger than {name} can hold ({most:g}): the result is written as float32",
            stacklevel=2,
        )
        return torch.float32

    def diverged(self, what: str) -> UserError:
        """Return the error of a run whose numbers are not finite; `what` says which."""
        kept = checkpoints(self.folder)
        good = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was saved yet"
        return UserError(
            f"{what}: training has diverged; {good}",
            where=str(self.folder.parent),
            do="lower train.optimizer.lr, set train.max_grad_norm: 1.0, or use precision bf16 or "
            "fp32, with another output.dir",
        )


def _free_name(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
