"""The disk space that the checkpoints of a run take, and its result."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from tlora_cli.foundation.devices import FILE_DTYPES
from tlora_cli.injection.adapter import Adapter
from tlora_cli.injection.saved_tensors import running_tensors, start_tensors, trained_tensors
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.train_sections import TrainConfig
from tlora_cli.training.optimizers import STATE_COPIES

_IN_A_FILE, _IN_A_STATE, _A_FILE = 150, 300, 10_000
"""Bytes of names, headers and padding that a tensor takes in an adapter file and in a state, and
those of a file's own header."""


@dataclass(frozen=True)
class DiskSpace:
    """About how many bytes a run's files take.

    Attributes:
        checkpoint: each one.
        start: of the adapter, once.
        result: the run's adapter file.
    """

    checkpoint: int
    start: int
    result: int

    def of_run(
        self, train: TrainConfig, step: int = 0, present: int = 0, started: bool = False
    ) -> int:
        """Return the bytes that a run's checkpoints and its result still take.

        Args:
            train: of the recipe.
            step: finished steps.
            present: checkpoints that are there.
            started: whether the start is there.
        """
        left = math.ceil((train.steps - step) / train.checkpoint.every)
        # One more than is kept: the new one is written before the oldest goes.
        kept = train.checkpoint.keep + (train.select == "auto")
        coming = min(left, max(0, kept + 1 - present))
        return coming * self.checkpoint + self.result + (0 if started else self.start)


def disk_space(adapter: Adapter, recipe: Recipe) -> DiskSpace:
    """Return what a run's files take; the adapter may be on the meta device."""
    train = recipe.train
    trained, running = trained_tensors(adapter), running_tensors(adapter)
    values, moved = _numbers(trained), _numbers(running)
    # With an average the file holds that, and the state what is trained.
    copies = STATE_COPIES[train.optimizer.name] + (train.ema is not None)
    in_state = (copies + 1) * len(trained) + len(running)  # an optimizer's have counters, too
    start = start_tensors(adapter)
    in_result = sum(change.numbers_in_file() for change in adapter.layers.values())
    wide = FILE_DTYPES[recipe.output.dtype].itemsize
    headers = _IN_A_FILE * len(trained) + _A_FILE
    return DiskSpace(
        checkpoint=int(4 * ((1 + copies) * values + moved) + headers + _IN_A_STATE * in_state),
        start=4 * _numbers(start) + headers if start else 0,
        result=wide * in_result + headers,
    )


def _numbers(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())
