"""All that resumes, and the checkpoints that hold it.

A checkpoint is a folder `checkpoint-000100` with the adapter file of that step (ready to sample)
and `training_state.pt`: the adapter's trained and frozen tensors, their average, the optimizer, the
gradient scaler and the step. Random numbers are functions of (seed, step), so they need no saving.
"""

from __future__ import annotations

import math
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tlora_cli.formats.pickles import check_archive
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import (
    folder_atomically,
    remove_folder,
    remove_leftovers,
    require_space,
)
from tlora_cli.injection.adapter import Adapter
from tlora_cli.recipe.models import TrainConfig
from tlora_cli.training.average import Average
from tlora_cli.training.optimizers import STATE_COPIES
from tlora_cli.training.run_folder import checkpoints, step_of

STATE_FILE = "training_state.pt"
ADAPTER_FILE = "adapter.safetensors"
STATE_VERSION = 1


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
        """Return tensors and plain values only, so that loading runs no code."""
        state: dict[str, Any] = {
            "version": STATE_VERSION,
            "adapter": self.adapter.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "inputs": self.inputs,
            "base_version": self.adapter.info.base_version,
            "step": self.step,
            "seconds": self.seconds,
        }
        if self.average:
            state["average"] = self.average.state_dict()
        return state

    def load_dict(self, saved: dict[str, Any]) -> None:
        """Take everything back.

        Raises:
            ValueError: if it belongs to another version or adapter.
            UserError: if the pictures have changed since, or the base that comes with the program.
        """
        if saved.get("version") != STATE_VERSION:
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
        self.load_weights(saved)
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scaler and saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        self.step, self.seconds = saved["step"], saved["seconds"]

    def load_weights(self, saved: dict[str, Any]) -> None:
        """Take back only the adapter and the average of its weights."""
        self.adapter.load_state_dict(saved["adapter"])
        if self.average:
            self.average.load_state_dict(saved["average"])


def bytes_needed(adapter: Adapter, train: TrainConfig) -> int:
    """Return about how large a checkpoint is: adapter file, state, average, optimizer, in bytes."""
    trained = sum(parameter.numel() for parameter in adapter.parameters())
    whole = sum(tensor.numel() for tensor in adapter.state_dict().values())
    file = sum(change.numbers_in_file() for change in adapter.layers.values())
    copies = STATE_COPIES[train.optimizer.name] + (train.ema is not None)
    return int(4 * (whole + file + copies * trained)) + 1_000_000


def room_for_checkpoints(train: TrainConfig, step: int, present: int, size: int) -> int:
    """Return the bytes that a run's checkpoints and its result still take.

    Args:
        train: of the recipe.
        step: finished steps.
        present: checkpoints that are there.
        size: bytes of one, `bytes_needed`.
    """
    left = math.ceil((train.steps - step) / train.checkpoint.every)
    # One more than is kept: the new one is written before the oldest goes. One for the result.
    kept = train.checkpoint.keep + (train.select == "auto")
    return size * (min(left, max(0, kept + 1 - present)) + 1)


def save_checkpoint(folder: Path, state: TrainingState, dtype: torch.dtype, needed: int) -> Path:
    """Write a checkpoint for the present step.

    Raises:
        UserError: if the disk is full; the checkpoints before stay.
    """
    target = folder / f"checkpoint-{state.step:06d}"
    if target not in checkpoints(folder):
        require_space(folder, needed, "a checkpoint")
        with folder_atomically(target) as unfinished:
            with state.as_result():
                state.adapter.save(unfinished / ADAPTER_FILE, dtype)
            # Through a file of our own: torch's writer hides why a disk refuses.
            with (unfinished / STATE_FILE).open("wb") as file:
                torch.save(state.to_dict(), file)
    return target


def remove_old(folder: Path, keep: int, spared: int) -> None:
    """Remove all checkpoints but the last `keep` and that of the step `spared`."""
    for old in checkpoints(folder)[:-keep]:
        if step_of(old) != spared:
            remove_folder(old)


def _read(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint holds; any kind of damage raises an Exception of any kind."""
    check_archive(checkpoint / STATE_FILE)
    saved: dict[str, Any] = torch.load(
        checkpoint / STATE_FILE, map_location="cpu", weights_only=True
    )
    if saved["step"] != step_of(checkpoint):
        raise ValueError(f"it holds step {saved['step']}")
    return saved


def load_weights(folder: Path, step: int, state: TrainingState) -> None:
    """Load the adapter of a step's checkpoint, and its average.

    Raises:
        UserError: if it is not there or can't be loaded.
    """
    path = folder / f"checkpoint-{step:06d}"
    try:
        state.load_weights(_read(path))
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
            state.load_dict(_read(path))
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
        dtype: of the tensors in adapter files.
        keep: how many of the last ones stay.
        size: about how many bytes one takes.
    """

    folder: Path
    state: TrainingState
    dtype: torch.dtype
    keep: int
    size: int

    def load_latest(self) -> bool:
        """Go on from the last checkpoint; return whether there is one. See `load_latest`."""
        return load_latest(self.folder, self.state) is not None

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
        save_checkpoint(self.folder, self.state, self.dtype, self.size)

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
            adapter.save(file, self.dtype)

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
