"""accelerate's part in a run: one device, scaled and clipped gradients. No other module uses it."""

from __future__ import annotations

from collections.abc import Sequence

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from tlora_cli.foundation.devices import choose_device, is_accelerator
from tlora_cli.recipe.train_sections import TrainConfig
from tlora_cli.training.optimizers import check_optimizer
from tlora_cli.training.trackers.base import check_installed


def make_accelerator(train: TrainConfig, trackers: Sequence[str]) -> Accelerator:
    """Return accelerate's part in a run: gradient scaling and clipping on one device.

    Raises:
        UserError: if the device or a package is missing.
    """
    on_gpu = is_accelerator(choose_device(train.device, train.precision))
    check_optimizer(train.optimizer, on_gpu)
    check_installed(trackers)
    AcceleratorState._reset_state(reset_partial_state=True)  # of an earlier run in this process
    return Accelerator(
        gradient_accumulation_steps=train.accumulation,
        mixed_precision="fp16" if train.precision == "fp16" else "no",
        cpu=not on_gpu,
    )
